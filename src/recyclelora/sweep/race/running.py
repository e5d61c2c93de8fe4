"""A race in a sweep: its entrants are confirmations in the ledger, which get one unit after the other, one a seed."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recyclelora.runs.directory import RESULT
from recyclelora.runs.mailbox import AttemptEnd
from recyclelora.sweep.goals import is_miou, select
from recyclelora.sweep.ledger import COMPLETE, FAILED, WAITING, Ledger, Trial
from recyclelora.sweep.planning import Plan, units_of
from recyclelora.sweep.race.rules import OBJECTIVE, Entrant, Race, Standing, is_named, judge, ranked
from recyclelora.sweep.record import POINT, StudyRecord
from recyclelora.sweep.search import Search
from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import read_object, read_record

Known = dict[tuple[str, int], float]
"""(trial's folder, unit) -> its value, which does not change any more."""


def rows(race: Race, standings: Sequence[Standing]) -> list[list[str]]:
    """Entrants for people, the best mean first: name, seeds, mean, standing."""
    found = []
    for standing in ranked(race, standings):
        values = standing.entrant.values
        mean = _written(race, statistics.fmean(values)) if values else ""
        text = f"failed; {standing}" if standing.entrant.failed else str(standing)
        found.append([standing.entrant.name, str(len(values)), mean, text])
    return found


def _written(race: Race, value: float) -> str:
    return f"{100 * value:.2f}" if is_miou(race.on) else f"{value:.4f}"


class Racing:
    """Says who of a sweep's entrants gets another seed, and who is done.

    Args:
        plan: with a race, or without one, in which case nobody gets any
        search: the trials
    """

    def __init__(self, plan: Plan, search: Search) -> None:
        self.plan, self.search = plan, search
        self._known: Known = {}

    @property
    def entrants(self) -> list[Trial]:
        """In the order of their numbers."""
        return entrants_of(self.search.trials.values()) if self.plan.race is not None else []

    def standings(self) -> list[Standing]:
        """Of the entrants.

        Raises:
            UserError: a result lacks what is compared.
        """
        race, searched = self.plan.race, self.search.searched
        if race is None:
            return []
        return judge(race, read_entrants(race, self.entrants, searched, self.search.ledger.sweep, self._known))

    def lacks(self, trial: Trial) -> str | None:
        """Why a trial's runs cannot be compared, if they cannot."""
        race, sweep = self.plan.race, self.search.ledger.sweep
        if race is not None and trial.confirms:
            try:
                values_of(race, trial, sweep, self._known)
            except UserError as error:
                return str(error)
        return None

    def told(self, outcome: AttemptEnd) -> str:
        """What is compared of a run that has finished, for people; empty where it is missing."""
        race = self.plan.race
        try:
            value = None if race is None else _value(race, outcome, self.search.ledger.sweep)
        except UserError:
            value = None
        if race is None or value is None:
            return ""
        name = "" if race.on == OBJECTIVE else f"{race.on} "
        return f"{name}{_written(race, value)}{' %' if is_miou(race.on) else ''}"

    def next(self) -> tuple[Trial, int] | None:
        """Another seed for one of the entrants, written down; None where nobody is to get any now."""
        race, entrants = self.plan.race, self.entrants
        if race is None or self.search.n_trials == 0 or self.search.too_many_failures:  # 0: it was cancelled
            return None
        standings, least = self.standings(), race.least(len(entrants))
        for trial, standing in zip(entrants, standings, strict=True):
            if trial.state == COMPLETE and not standing.over:  # there may be more seeds by now, or other entrants
                _reopen(trial)
        units = [len(trial.units) for trial in entrants]
        waiting = [
            place for place, (trial, standing) in enumerate(zip(entrants, standings, strict=True))
            if not trial.ended and units[place] < race.seeds
            and any(units[place] <= units[other] for other in standing.waits_for)
            and (units[place] < least or units[place] == len(standing.entrant.values))
        ]  # fmt: skip
        if not waiting or not self.search.pays(None, runs=1):
            return None
        place = min(waiting, key=lambda i: (units[i], not standings[i].entrant.reference, i))
        trial, seed = entrants[place], self.plan.race_seed(units[place])
        trial.units += units_of(self.plan.space.overrides(trial.params), [seed])
        trial.save()
        return trial, units[place]

    def done(self) -> list[tuple[Trial, str]]:
        """Entrants whose runs have all finished and that need no more, with how they stand."""
        found = []
        for trial, standing in zip(self.entrants, self.standings(), strict=True):
            if not trial.ended and standing.over and len(standing.entrant.values) == len(trial.units):
                found.append((trial, str(standing)))
        return found

    def failed_again(self) -> list[tuple[Trial, int]]:
        """Units of failed entrants that are to run again, where that is wished."""
        again = []
        for trial in self.entrants if self.plan.retry_failed else ():
            if trial.state == FAILED:
                _reopen(trial)
                outcomes = enumerate(trial.outcomes())
                again += [(trial, unit) for unit, outcome in outcomes if outcome and outcome["status"] != COMPLETE]
        return again


def _reopen(trial: Trial) -> None:
    """Let an entrant go on that had ended."""
    trial.state, trial.values, trial.reason, trial.finished = WAITING, None, None, None
    trial.save_state()


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
            known[key] = _value(race, outcome, sweep)
        found.append(known[key])
    return found


def _value(race: Race, outcome: Mapping[str, Any], sweep: Path) -> float:
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
