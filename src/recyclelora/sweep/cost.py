"""What the runs of a sweep have cost, and about what is left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recyclelora.runs.unit import noted, read_outcome, read_started
from recyclelora.sweep.ledger import Trial
from recyclelora.sweep.race.rules import Race, Standing


@dataclass(frozen=True)
class Cost:
    """Times of runs, in seconds; runs side by side are added up."""

    spent: float
    """by runs that have ended and by those that run"""
    typical: float | None
    """median of finished runs"""
    fewest: int
    """runs that are still to be done, at least"""
    most: int
    running: int
    gpu_hours: float | None = None
    """where not every trial has one GPU"""

    def __str__(self) -> str:
        gpus = "" if self.gpu_hours is None else f" ({self.gpu_hours:.1f} GPU hours)"
        text = f"{duration(self.spent)} of runs{gpus} so far"
        if self.most == 0 or self.typical is None:
            return text
        low, high = self.fewest * self.typical, self.most * self.typical
        about = duration(low) if self.fewest == self.most else f"{duration(low)} to {duration(high)}"
        count = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        side = f", {self.running} at a time" if self.running > 1 else ""
        return f"{text}; about {about} left{side} ({count} runs of {duration(self.typical)}, the median here)"


def cost_of(trials: Sequence[Trial], n_trials: int, race: tuple[Race, list[Standing]] | None = None) -> Cost:
    """Of a sweep as its ledger has it; confirmations that are not asked for yet are not counted.

    Args:
        trials: all of the ledger
        n_trials: that its command asks for
        race: with its standings, in the order of the entrants' numbers
    """
    finished, spent, running, waiting = [], 0.0, 0, 0
    for trial in trials:
        for unit in range(len(trial.units)):
            outcome = read_outcome(trial.unit_folder(unit))
            began = trial.unit_folder(unit) / "started.json"
            if outcome is not None:
                spent += outcome.get("seconds", 0.0)
                finished += [outcome.get("seconds", 0.0)] if outcome["status"] == "complete" else []
            elif trial.ended:
                continue
            elif began.exists():
                running += 1
                spent += time.time() - began.stat().st_mtime
            waiting += not trial.ended and outcome is None
    searched = [trial for trial in trials if not trial.confirms]
    each = max((len(trial.units) for trial in searched), default=1)
    known = sum(trial.retry_of is None for trial in searched)
    fewest = waiting + (each * max(0, n_trials - known) if race is None or searched else 0)
    most = fewest
    for standing in race[1] if race is not None else ():
        seeds = race[0].seeds - len(standing.entrant.values) if race is not None and not standing.over else 0
        fewest, most = fewest + min(1, seeds), most + seeds
    shared = any(attempt.gpus != 1 for trial in trials for attempt in trial.attempts)
    typical = statistics.median(finished) if finished else None
    return Cost(spent, typical, fewest, most, running, gpu_hours(trials) if shared else None)


def duration(seconds: float) -> str:
    """In words: seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def lasted(folder: Path, attempt: int) -> float:
    """Seconds for which an attempt at a unit has run so far, as far as its files tell; 0 for one that has not begun."""
    outcome, started = read_outcome(folder), read_started(folder)
    if outcome is not None and outcome["attempt"] == attempt:
        return outcome.get("seconds") or 0.0
    if started is None or started["attempt"] != attempt:
        return 0.0
    since, seen = noted(folder / "started.json", "time", float), noted(folder / "progress.json", "time", float)
    return max(0.0, (seen or 0.0) - since) if since is not None else 0.0


def reached(folder: Path) -> int | None:
    """The last step that a unit has told of, over all its attempts."""
    return noted(folder / "progress.json", "step", int)


def gpu_hours(trials: Iterable[Trial]) -> float:
    """Hours for which jobs of trials have run times their GPUs, together; what waits in a queue takes none."""
    seconds = 0.0
    for trial in trials:
        for attempt in trial.attempts:
            running = attempt.ended is None
            took = lasted(trial.unit_folder(attempt.unit), attempt.attempt) if running else attempt.seconds
            seconds += took * attempt.gpus
    return seconds / 3600
