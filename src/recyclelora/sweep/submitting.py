"""Units are given to the executor; what it does not take at present is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from recyclelora.sweep.attempts import Attempt, now
from recyclelora.sweep.execution import Executor, NotNow, Work
from recyclelora.sweep.ledger import RUNNING, Trial

PAUSES = 5.0, 300.0
"""Seconds, first and longest, before something is submitted again that was not taken."""

Units = list[tuple[Trial, int]]


class Submitting:
    """Submits units.

    Args:
        executor: takes them, or not
        say: prints a line
    """

    def __init__(self, executor: Executor, say: Callable[[str], None]) -> None:
        self.executor, self.say = executor, say
        self._refused: str | None = None
        self._pause, self._not_before = PAUSES[0], 0.0

    @property
    def open(self) -> bool:
        """Whether it is worth trying now."""
        return time.monotonic() >= self._not_before

    def start(self, units: Units) -> dict[str, Units]:
        """Submit the first of some units, as many as are taken at present.

        Returns:
            jobs and their units; those in none are as if it had not been tried.
        """
        works, before = [], [trial.state for trial, _ in units]
        for trial, unit in units:
            attempt = Attempt(unit, len(trial.attempts_of(unit)) + 1, "", now())
            trial.attempts.append(attempt)
            trial.state = RUNNING
            trial.save_state()  # before the job can look for it
            works.append(Work(trial.number, trial.unit_folder(unit), attempt.attempt, trial.units[unit]))
        try:
            jobs = self.executor.submit(works)
        except Exception as error:
            _undo(units, before)
            if not isinstance(error, NotNow):
                raise
            self._wait(str(error))
            return {}
        if self._refused is not None:
            self.say("jobs are taken again")
        self._refused, self._pause = None, PAUSES[0]
        started: dict[str, Units] = {}
        rest = units
        for job in jobs:
            started[job.name], rest = rest[: job.units], rest[job.units :]
            for trial, unit in started[job.name]:
                attempt = trial.attempts_of(unit)[-1]
                attempt.job, attempt.gpus = job.name, job.gpus
                trial.save_state()
        _undo(rest, before[len(units) - len(rest) :])
        return started

    def _wait(self, reason: str) -> None:
        """Try again after growing pauses, and say why once."""
        if reason != self._refused:
            self.say(f"{reason}; it is tried again until it is taken")
        self._refused = reason
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, PAUSES[1])


def _undo(units: Units, states: Sequence[str]) -> None:
    for (trial, unit), state in zip(units, states, strict=True):
        trial.attempts.remove(trial.attempts_of(unit)[-1])
        trial.state = state if all(attempt.ended for attempt in trial.attempts) else RUNNING
        trial.save_state()
