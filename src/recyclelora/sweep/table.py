"""What a person sees of a sweep: a live table on a terminal, one line an event elsewhere, a summary at the end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recyclelora.runs.unit import Unit, read_reports
from recyclelora.sweep.cost import duration
from recyclelora.sweep.goals import TUNED, in_words, is_miou
from recyclelora.sweep.ledger import COMPLETE, FAILED, PAUSED, PRUNED, RUNNING, WAITING, Trial
from recyclelora.sweep.race.reading import entrants_of, read_entrants, rows
from recyclelora.sweep.race.rules import Entrant, Race, Standing, conclusion, judge
from recyclelora.system.progress import screen, shown

if TYPE_CHECKING:  # need Optuna, which a report does without
    from recyclelora.sweep.driver import Driver
    from recyclelora.sweep.search import Search

EVERY = 1.0
"""Seconds between two pictures of the live table."""
COLUMNS = ("trial", "what", "step", "loss", "last value", "time or why it waits", "job")
SHOWN = 30
"""Rows of the final table."""


class SweepTable:
    """Shows how a sweep stands.

    Args:
        study: its name
        tuned: whether what is optimised looks at the targets' labels
    """

    def __init__(self, study: str, *, tuned: bool) -> None:
        self.study, self.tuned = study, tuned
        self.console = screen()
        self._live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._drawn = 0.0

    def __enter__(self) -> SweepTable:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.__exit__(*error)

    def event(self, text: str) -> None:
        """Print one line."""
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}")

    def update(self, driver: Driver) -> None:
        """Draw the live table anew, at most once a second."""
        if self._live is None or time.monotonic() - self._drawn < EVERY:
            return
        self._drawn, best = time.monotonic(), driver.search.ranked(driver.search.searched)
        table = Table(*COLUMNS, title=self._headline(driver.search))
        for job, units in driver.units.jobs.items():
            for trial, unit in units:
                table.add_row(*running_row(trial, unit, job))
        below = (
            f"best so far: {in_words(trial.values or ())} by trial {trial.number} ({trial.what})" for trial in best[:1]
        )
        self._live.update(Group(table, *below), refresh=True)

    def _headline(self, search: Search) -> str:
        counts = count_states(list(search.trials.values()))
        text = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        return f"{self.study}: {text or 'nothing yet'} of {search.n_trials}"

    def summary(self, search: Search) -> None:
        """Print what the sweep found, and what failed and why."""
        trials = sorted(search.searched, key=lambda t: t.number)
        ranked = search.ranked(trials)
        if ranked:
            self._values(TUNED if self.tuned else "", ranked[:SHOWN], len(ranked), "trial")
        confirmed = [t for t in search.trials.values() if t.confirms and t.state == COMPLETE]
        race = search.plan.race
        if race is not None:
            self._race(race, read_entrants(race, entrants_of(search.trials.values()), trials, search.ledger.sweep))
        elif confirmed:
            self._values("on fresh seeds", search.ranked(confirmed), len(confirmed), "confirmation of")
        failed = [t for t in search.trials.values() if t.state == FAILED]
        if failed:
            table = Table("trial", "what", "why", "log", title="failed", title_justify="left")
            for trial in failed:
                log = trial.unit_folder(trial.attempts[-1].unit if trial.attempts else 0) / "log.txt"
                table.add_row(str(trial.number), trial.what, trial.reason, str(shown(log)))
            self.console.print(table)
        pruned = sum(t.state == PRUNED for t in trials)
        if pruned:
            self.console.print(f"{pruned} pruned: worse than the others at the same point")
        if paused := paused_in_words(trials):
            self.console.print(f"{paused}: better ones went on; more trials (n_trials=) may take them further")

    def _race(self, race: Race, entrants: list[Entrant]) -> None:
        """Print who stands how, and what may be said of it."""
        standings = judge(race, entrants)
        if standings:
            self.console.print(race_table(race, standings, self.study))
            self.console.print(conclusion(race, standings))

    def _values(self, remark: str, trials: list[Trial], of: int, first: str) -> None:
        title = f"{self.study}" + (f" ({remark})" if remark else "") + (f", best {len(trials)}" if of > SHOWN else "")
        table = Table(first, "what", title=title, title_justify="left")
        for index in range(len(trials[0].values or ())):
            table.add_column("value" if len(trials[0].values or ()) == 1 else f"value {index}", justify="right")
        for trial in trials:
            table.add_row(str(trial.number), trial.what, *(f"{value:.4f}" for value in trial.values or ()))
        self.console.print(table)


def race_table(race: Race, standings: list[Standing], title: str) -> Table:
    """Who stands how."""
    figure = f"mean {race.on}" + (", %" if is_miou(race.on) else "")
    table = Table("entrant", "seeds", figure, "standing", title=title, title_justify="left")
    for row in rows(race, standings):
        table.add_row(*row)
    return table


def count_states(trials: list[Trial]) -> dict[str, int]:
    """How many trials are in each state."""
    return {s: sum(t.state == s for t in trials) for s in (COMPLETE, RUNNING, WAITING, PAUSED, PRUNED, FAILED)}


def paused_in_words(trials: list[Trial]) -> str:
    """How many trials are paused at each step; empty for none."""
    places = Counter(trial.until for trial in trials if trial.state == PAUSED)
    return "paused: " + ", ".join(f"{n} after step {s}" for s, n in sorted(places.items())) if places else ""


def running_rows(trials: Iterable[Trial]) -> list[list[str]]:
    """The units that run or are queued, as their ledger has them, for a table with `COLUMNS`."""
    return [
        running_row(trial, unit, trial.job_of(unit))
        for trial in trials
        if trial.state == RUNNING
        for unit in range(len(trial.units))
        if trial.attempts_of(unit) and trial.outcome(unit) is None
    ]


def running_row(trial: Trial, unit: int, job: str) -> list[str]:
    """A running unit for the live table."""
    folder = trial.unit_folder(unit)
    progress = _progress(folder)
    reports = read_reports(folder)
    seed = f", {trial.units[unit][-1]}" if len(trial.units) > 1 else ""
    return [
        f"{trial.number}",
        trial.what + seed,
        f"{progress['step']}/{progress['of']}" if progress else "",
        f"{progress['loss']:.3f}" if progress else "",
        f"{reports[-1][1]:.4f}" if reports else "",
        f"waits: {waits}" if (waits := Unit(folder).waits_for) else _minutes(folder),
        job,
    ]


def _progress(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / "progress.json").read_text())
    except (OSError, ValueError):
        return None
    return found


def _minutes(folder: Path) -> str:
    path = folder / "started.json"
    if not path.exists():
        return "queued"
    return duration(time.time() - path.stat().st_mtime)
