"""Total variation of the scores within a label."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from recyclelora.models.losses.loss import LossInputs


@dataclass(frozen=True)
class Smoothness:
    """Mean difference of the class probabilities of neighbours that have one label."""

    weight: float
    warmup: int

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """``loss_smoothness``; 0 where no neighbours share a label."""
        probabilities, labels = inputs.scores.softmax(1), inputs.labels
        total, pairs = probabilities.new_zeros(()), probabilities.new_zeros(())
        for axis in (1, 2):
            one, other = labels.narrow(axis, 1, labels.shape[axis] - 1), labels.narrow(axis, 0, labels.shape[axis] - 1)
            same = (one == other) & (one != inputs.ignore_index)
            steps = probabilities.diff(dim=axis + 1).abs().sum(1)
            total, pairs = total + (steps * same).sum(), pairs + same.sum()
        growing = min(1.0, inputs.step / self.warmup)
        return {"loss_smoothness": self.weight * growing * total / pairs.clamp(min=1)}
