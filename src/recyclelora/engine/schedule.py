"""Learning rate and weight decay as pure functions of the step: nothing to store, nothing to resume."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then ``(1 - t / T) ** power``; weight decay by half a cosine from its start to its end."""

    max_steps: int
    power: float = 0.9
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6
    weight_decay_end: float | None = None

    def lr_factor(self, step: int) -> float:
        """Factor on every group's learning rate for step ``step`` (0-based)."""
        if step < self.warmup_steps:
            return self.warmup_ratio + (1 - self.warmup_ratio) * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps)
        return float(max(0.0, 1 - progress) ** self.power)

    def weight_decay(self, start: float, step: int) -> float:
        """Weight decay of a group that began with ``start``; 0 stays 0."""
        if self.weight_decay_end is None or start == 0:
            return start
        cosine = (1 + math.cos(math.pi * min(1.0, step / self.max_steps))) / 2
        return self.weight_decay_end + (start - self.weight_decay_end) * cosine

    def apply(self, optimizer: Optimizer, step: int) -> None:
        """Set every group's learning rate and weight decay for step ``step``."""
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.lr_factor(step)
            group["weight_decay"] = self.weight_decay(group["base_weight_decay"], step)
