"""A budget: what a sweep may spend before it starts nothing more; a larger one lets the same sweep go on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from recyclelora.sweep.cost import gpu_hours, reached
from recyclelora.sweep.ledger import COMPLETE, RUNNING, WAITING, Trial
from recyclelora.system.errors import UserError

STEPS, GPU_HOURS = "steps", "gpu_hours"
HOURS = {"minutes": 1 / 60, "hours": 1, "days": 24}
"""Units of this command's time, in hours."""
KEY = "hydra.sweeper.budget"


@dataclass(frozen=True)
class Budget:
    """An amount of training steps of all trials, of hours that they take times their GPUs, or of this command's hours.

    Steps are reserved before they are trained, so that a budget of them is never exceeded; when hours are used up,
    what runs goes on to its next pause, or to its end.
    """

    amount: float
    unit: str
    length: int | None = None
    """steps of a whole trial"""
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def parse(cls, text: object, length: int | None) -> Budget | None:
        """Read ``20000 steps``, ``12 gpu_hours``, ``8 hours``, minutes or days; None for None.

        Raises:
            UserError: it is written otherwise, or trials have no steps to count.
        """
        if text is None:
            return None
        units = "|".join([STEPS, GPU_HOURS, *HOURS])
        match = re.fullmatch(rf"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*({units})\s*", str(text))
        if match is None or float(match[1]) <= 0:
            raise UserError(f"{KEY}={text}: write '20000 steps', '12 gpu_hours' or '8 hours' (minutes, days)")
        if match[2] == STEPS and length is None:
            raise UserError(f"{KEY}={text}: these trials have no trainer.max_steps; give hours")
        return cls(float(match[1]), match[2], length)

    def cost(self, until: int | None, at: int = 0, runs: int = 1) -> int:
        """Steps from ``at`` to a pause, or to the end of so many runs."""
        return ((self.length or 0) * runs if until is None else until) - at

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.amount:g} {self.unit}"

    def allows(self, trials: Iterable[Trial], steps: int) -> bool:
        """Whether something more may be started.

        Args:
            trials: of the sweep
            steps: that it would train
        """
        if self.unit == STEPS:
            return self.steps(trials) + steps <= self.amount
        if self.unit in HOURS:
            return (time.monotonic() - self.began) / 3600 < self.amount * HOURS[self.unit]
        return gpu_hours(trials) < self.amount

    def steps(self, trials: Iterable[Trial]) -> int:
        """Trained by all trials, and reserved by those that run or wait in the queue."""
        return sum(self._of(trial, unit) for trial in trials for unit in range(len(trial.units)))

    def _of(self, trial: Trial, unit: int) -> int:
        whole = self.length or 0
        if trial.state == COMPLETE:
            return whole
        if trial.state in (WAITING, RUNNING):  # further repeats follow when the first one has got to the end
            return whole if trial.until is None else 0 if unit else trial.until
        rungs = [0, *map(int, trial.rungs)] if unit == 0 else [0]
        return max(*rungs, reached(trial.unit_folder(unit)) or 0)
