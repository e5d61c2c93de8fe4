"""Rungs: steps after which trials pause, and which of them go on; nothing is trained twice.

Asynchronous successive halving (ASHA; Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020,
algorithm 2) with trials that go on where they paused, and Hyperband's brackets of it (Li et al., JMLR 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recyclelora.sweep.ledger import COMPLETE, FAILED, PAUSED, Trial
from recyclelora.system.errors import UserError

KINDS = ("asha", "hyperband")
"""Pruners that pause; all others end trials for good."""
HALVINGS = 3
"""Rungs of a schedule whose first one is not given."""
KEY = "hydra.sweeper.pruner"
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Rungs:
    """The rungs of a sweep.

    Bracket b begins at rung b, so that the last one pauses nowhere; without brackets there is only the first.
    """

    steps: tuple[int, ...]
    """of the rungs, below the last step of the schedule"""
    last: int
    """of the schedule"""
    factor: int
    """one of so many goes on from a rung"""
    brackets: int = 1
    max_steps: int | None = None
    """of every trial, where trials have steps"""

    @classmethod
    def of(cls, options: Mapping[str, Any], max_steps: int | None) -> Rungs:
        """Rungs at r0 factor^k steps, as the options of a pruner say.

        Args:
            options: ``kind``, ``min_resource`` (r0), ``max_resource``, ``reduction_factor``
            max_steps: of a trial's schedule, where it has one

        Raises:
            UserError: an option that makes no sense.
        """
        factor, first, last = options["reduction_factor"], options["min_resource"], options["max_resource"]
        if last == "auto":
            last = max_steps
        if not _whole(factor) or factor < 2:
            raise UserError(f"{KEY}.reduction_factor={factor}: must be a whole number of at least 2")
        if not _whole(last) or last < 2:
            raise UserError(f"{KEY}.max_resource={last}: must be the steps of a trial, at least 2")
        if max_steps is not None and last > max_steps:
            raise UserError(f"{KEY}.max_resource={last}: trainer.max_steps={max_steps} ends before")
        if first == "auto":
            first = math.ceil(last / factor**HALVINGS)
        if not _whole(first) or not 1 <= first < last:
            raise UserError(f"{KEY}.min_resource={first}: must be between 1 and {last - 1}, below the steps of a trial")
        steps = []
        while first < last:
            steps.append(first)
            first *= factor
        return cls(tuple(steps), last, factor, len(steps) + 1 if options["kind"] == "hyperband" else 1, max_steps)

    @property
    def in_words(self) -> str:
        """Where trials pause, in a line."""
        places = f"trials pause after {', '.join(map(str, self.steps))} of {self.last} steps"
        skip = f" ({self.brackets} brackets, of which each leaves out one more)" if self.brackets > 1 else ""
        return f"{places}{skip}; the best of every {self.factor} go on"

    def check(self, max_steps: int | None) -> None:
        """Refuse a trial of another length, which would be at another point of its schedule there.

        Raises:
            UserError: it is one.
        """
        if max_steps != self.max_steps:
            raise UserError(
                f"trainer.max_steps={max_steps}: trials that pause are compared at steps of one schedule, of "
                f"{self.max_steps} steps"
            )

    def bracket(self, number: int) -> int:
        """The bracket of a trial: shares of the numbers as in Hyperband, each spread evenly over all."""
        top = self.brackets - 1
        sizes = [math.ceil(self.brackets / (s + 1) * self.factor**s) for s in range(top, -1, -1)]
        place = number * GOLDEN % 1.0 * sum(sizes)
        return next(b for b in range(self.brackets) if place < sum(sizes[: b + 1]))

    def below(self, number: int) -> tuple[int, ...]:
        """The steps after which a trial may pause."""
        return self.steps[self.bracket(number) :]

    def after(self, number: int, step: int = 0) -> int | None:
        """The next step after which a trial pauses; None: it goes to the end."""
        return next((s for s in self.below(number) if s > step), None)

    def to_promote(self, trials: Sequence[Trial], *, maximize: bool, over: bool) -> Trial | None:
        """The paused trial that goes on next: of the highest rung first, there the best.

        Args:
            trials: of the search
            maximize: whether more is better
            over: whether no new trials come any more; then the best of each rung goes on, however few have reached it
        """
        brackets: dict[int, list[Trial]] = {}
        for trial in trials:
            brackets.setdefault(self.bracket(trial.number), []).append(trial)
        found = [t for b, members in brackets.items() for t in self._among_best(members, self.steps[b:], maximize)]
        if not found and over:
            found = [t for b, members in brackets.items() for t in _left(members, self.steps[b:], maximize)]
        return max(found, key=lambda t: t.until or 0, default=None)

    def is_among_best(self, trial: Trial, trials: Sequence[Trial], *, maximize: bool) -> bool:
        """Whether a trial that has just reached the rung ``trial.until`` belongs to the best there."""
        bracket, step = self.bracket(trial.number), trial.until or 0
        reached = ranked([t for t in trials if self.bracket(t.number) == bracket], step, maximize=maximize)
        return trial in reached[: len(reached) // self.factor]

    def _among_best(self, trials: Sequence[Trial], steps: Sequence[int], maximize: bool) -> Iterator[Trial]:
        """Of each rung the best paused one that belongs to the best ``1 / factor`` there."""
        for step in steps:
            reached = ranked(trials, step, maximize=maximize)
            yield from _paused(reached[: len(reached) // self.factor], step)[:1]


def _left(trials: Sequence[Trial], steps: Sequence[int], maximize: bool) -> list[Trial]:
    """The best of the lowest rung from which none has gone on, once nothing of a bracket runs."""
    if any(not (trial.ended or trial.state == PAUSED) for trial in trials):
        return []
    for step in steps:
        reached = ranked(trials, step, maximize=maximize)
        if not any(_went_on(trial, step) for trial in reached) and (paused := _paused(reached, step)):
            return paused[:1]
    return []


def _went_on(trial: Trial, step: int) -> bool:
    """Whether a trial that has reached a rung got further, or still may."""
    return trial.state == COMPLETE or (trial.state != FAILED and (trial.until is None or trial.until > step))


def _paused(trials: Sequence[Trial], step: int) -> list[Trial]:
    return [trial for trial in trials if trial.state == PAUSED and trial.until == step]


def ranked(trials: Sequence[Trial], step: int, *, maximize: bool) -> list[Trial]:
    """Trials that have reached a rung, the best first; one without a value there is the last."""
    sign = -1 if maximize else 1

    def place(trial: Trial) -> tuple[bool, float, int]:
        value = trial.rungs[str(step)]
        return value is None, sign * (value or 0.0), trial.number

    return sorted((trial for trial in trials if str(step) in trial.rungs), key=place)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
