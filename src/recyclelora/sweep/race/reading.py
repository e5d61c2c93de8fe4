"""What the files of a sweep tell of its race: entrants, their values, standings. Needs no Optuna: reports read it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recyclelora.runs.directory import RESULT
from recyclelora.sweep.goals import is_miou, select
from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger, Trial
from recyclelora.sweep.race.rules import OBJECTIVE, Entrant, Race, Standing, is_named, judge, ranked
from recyclelora.sweep.record import POINT, StudyRecord
from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import read_object, read_record

Known = dict[tuple[str, int], float]
"""(trial's folder, unit) -> its value, which does not change any more."""


def rows(race: Race, standings: Sequence[Standing]) -> list[list[str]]:
    """Entrants for people, the best mean first: name, seeds, mean, standing."""
    found = []
    for standing in ranked(race, standings):
        values = standing.entrant.values
        mean = in_words(race, statistics.fmean(values)) if values else ""
        text = f"failed; {standing}" if standing.entrant.failed else str(standing)
        found.append([standing.entrant.name, str(len(values)), mean, text])
    return found


def in_words(race: Race, value: float) -> str:
    """What is compared of one run."""
    return f"{100 * value:.2f}" if is_miou(race.on) else f"{value:.4f}"


def entrants_of(trials: Iterable[Trial]) -> list[Trial]:
    """Of the trials of a sweep, by number."""
    return sorted((trial for trial in trials if trial.confirms), key=lambda trial: trial.number)


def read_entrants(
    race: Race, trials: Sequence[Trial], searched: Sequence[Trial], sweep: Path, known: Known | None = None
) -> list[Entrant]:
    """What a race knows of each of its trials.

    Args:
        race: what is to be decided
        trials: of :func:`entrants_of`
        searched: trials of the search that chose them: of several that a reference names, the best is meant
        sweep: its folder
        known: values that were read before, and will be

    Raises:
        UserError: a result lacks what is compared.
    """
    values = {trial.number: trial.value for trial in searched}
    references = set()
    for text in race.references:
        named = [trial for trial in trials if is_named(text, trial.params)]
        sign = 1 if race.higher else -1
        named.sort(key=lambda trial: -sign * (values.get(trial.number) or 0.0))
        references |= {trial.number for trial in named[:1]}
    names = [_called(trial) for trial in trials]
    twice = {name for name, count in Counter(names).items() if count > 1}
    known = {} if known is None else known
    return [
        Entrant(
            f"{name} (trial {trial.number})" if name in twice else name, tuple(values_of(race, trial, sweep, known)),
            trial.number in references, trial.state == FAILED, trial.number,
        )
        for name, trial in zip(names, trials, strict=True)
    ]  # fmt: skip


def _called(trial: Trial) -> str:
    """Its point where nothing else was chosen."""
    chosen = trial.params.keys() - {"seed"}
    return str(trial.params[POINT]) if chosen == {POINT} else trial.what


def values_of(race: Race, trial: Trial, sweep: Path, known: Known) -> list[float]:
    """What is compared of a trial's units, as far as all before them are complete.

    Raises:
        UserError: a result does not have it.
    """
    found: list[float] = []
    for unit in range(len(trial.units)):
        key = trial.folder.name, unit
        if key not in known:
            outcome = trial.outcome(unit)
            if outcome is None or outcome["status"] != COMPLETE:
                break
            known[key] = value_of(race, outcome, sweep)
        found.append(known[key])
    return found


def value_of(race: Race, outcome: Mapping[str, Any], sweep: Path) -> float:
    """What is compared of one run, out of its outcome or its result.

    Raises:
        UserError: the result does not have it.
    """
    if race.on == OBJECTIVE:
        return float(outcome["values"][0])
    if not outcome.get("run_dir"):
        raise UserError(f"hydra.sweeper.race_on={race.on}: the task wrote no result.json; race_on=objective")
    value = select(read_object(sweep / outcome["run_dir"] / RESULT), race.on)
    if not isinstance(value, int | float):
        raise UserError(f"hydra.sweeper.race_on={race.on}: is {value} in result.json: are there targets with labels?")
    return float(value)


def read_race(sweep: Path) -> tuple[Race, list[Standing]] | None:
    """The race of a sweep and its standings; None where it has none.

    Raises:
        UserError: its files are not what was written.
    """
    path = sweep / "study.json"
    if not path.exists() or not read_object(path).get("race"):
        return None
    about = read_record(path, StudyRecord)
    record = about.get("race")
    assert record is not None
    seeds = about.get("race_seeds") or 0
    race = Race(tuple(record["references"]), record["on"], record["alpha"], seeds, record["higher"])
    trials = Ledger(sweep).trials()
    searched = [trial for trial in trials if not trial.confirms]
    return race, judge(race, read_entrants(race, entrants_of(trials), searched, sweep))
