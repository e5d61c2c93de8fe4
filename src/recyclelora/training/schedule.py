"""Learning rate and weight decay as pure functions of the step: nothing to store, nothing to resume."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch.optim import Optimizer

from recyclelora.config.build import ADAPTER
from recyclelora.config.run import Config

Decay = Literal["poly", "cosine", "constant"]
WarmUp = Literal["linear", "exponential", "constant"]


@dataclass(frozen=True)
class Schedule:
    """A warm-up, then a decay over the remaining steps; weight decay by half a cosine from its start to its end.

    Attributes:
        max_steps: T.
        decay: ``poly`` (1 - t / T) ** power, ``cosine`` (1 + cos(pi t / T)) / 2, or ``constant`` 1.
        power: of ``poly``.
        lr_end: factor that the decay ends at; it runs from 1 to there.
        warmup: the factor rises from ``warmup_ratio`` to 1 linearly or exponentially, or stays at it (``constant``).
        warmup_steps: its length; the decay begins behind it.
        warmup_ratio: factor of the first step.
        weight_decay_end: None keeps the weight decay as it is.
        reach_ends: warm-up and decay have arrived at their ends *in* their last step, as mmengine counts; otherwise
            they would arrive one step later, which for the decay is after the run. The weight decay is counted in the
            second way in both.
        delay: steps without learning before the warm-up.
        backbone: learning rates of the adapter's groups, where they are others.
    """

    max_steps: int
    decay: Decay = "poly"
    power: float = 0.9
    lr_end: float = 0.0
    warmup: WarmUp = "linear"
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6
    weight_decay_end: float | None = None
    reach_ends: bool = False
    delay: int = 0
    backbone: Schedule | None = None

    def lr_factor(self, step: int) -> float:
        """Factor on every group's learning rate for step ``step`` (0-based)."""
        if step < self.delay:
            return 0.0
        step -= self.delay
        if step < self.warmup_steps:
            return self._warming(step / self._length(self.warmup_steps))
        progress = (step - self.warmup_steps) / self._length(self.max_steps - self.delay - self.warmup_steps)
        return self.lr_end + (1 - self.lr_end) * self._decayed(min(1.0, progress))

    def _length(self, steps: int) -> int:
        """Over how many steps a part of ``steps`` steps goes from its start to its end."""
        return max(1, steps - 1 if self.reach_ends else steps)

    def _warming(self, progress: float) -> float:
        if self.warmup == "linear":
            return self.warmup_ratio + (1 - self.warmup_ratio) * progress
        return self.warmup_ratio ** (1 - progress) if self.warmup == "exponential" else self.warmup_ratio

    def _decayed(self, progress: float) -> float:
        if self.decay == "poly":
            return float((1 - progress) ** self.power)
        return (1 + math.cos(math.pi * progress)) / 2 if self.decay == "cosine" else 1.0

    def weight_decay(self, start: float, step: int) -> float:
        """Weight decay of a group that began with ``start``; 0 stays 0."""
        if self.weight_decay_end is None or start == 0:
            return start
        cosine = (1 + math.cos(math.pi * min(1.0, step / self.max_steps))) / 2
        return self.weight_decay_end + (start - self.weight_decay_end) * cosine

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set every group's learning rate and weight decay for step ``step``."""
        for group in optimizer.param_groups:
            own = self.backbone if self.backbone is not None and group["name"].startswith(ADAPTER) else self
            group["lr"] = group["base_lr"] * own.lr_factor(step)
            group["weight_decay"] = self.weight_decay(group["base_weight_decay"], step)


def build_schedule(config: Config) -> Schedule:
    """Learning rate and weight decay of every step."""
    o = config.optimizer
    schedule = Schedule(
        config.trainer.max_steps,
        decay=o.schedule, power=o.power, lr_end=o.lr_end,  # type: ignore[arg-type]
        warmup=o.warmup, warmup_steps=o.warmup_steps, warmup_ratio=o.warmup_ratio,  # type: ignore[arg-type]
        weight_decay_end=o.weight_decay_end, reach_ends=o.reach_ends,
    )  # fmt: skip
    if o.backbone_delay == 0 and o.backbone_warmup is None:
        return schedule
    warmup = o.warmup_steps if o.backbone_warmup is None else o.backbone_warmup
    return replace(schedule, backbone=replace(schedule, delay=o.backbone_delay, warmup_steps=warmup))
