"""Losses besides the decoder's, such as a regulariser: each from a package of its own, found by its entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor, nn


def _absent(*given: object) -> Any:
    raise NotImplementedError("these inputs were made by hand and do not offer this")


@dataclass(frozen=True)
class LossInputs:
    """What a loss sees of one batch, or of one part of it where ``trainer.accumulate`` cuts it."""

    images: Tensor
    """(B, 3, H, W) as the backbone sees them: normalised, sides padded to multiples of a patch"""
    labels: Tensor
    """(B, H, W) train ids"""
    ignore_index: int
    """train id of what counts nowhere"""
    features: Sequence[Tensor]
    """(B, C, h, w) of each level, at the stride of a patch"""
    step: int
    """finished steps"""
    scored: Callable[[], Tensor]
    decoded: Callable[[Sequence[Tensor]], Tensor] = _absent
    """other features of all levels -> the decoder's scores of them; costs its forward"""
    encoded: Callable[[Tensor], Sequence[Tensor]] = _absent
    """other images (B, 3, H, W) of this size, normalised -> their features; costs the backbone's forward"""
    probabilities: Callable[[Tensor], Tensor] = _absent
    """scores -> probabilities (B, num_classes, H, W) that sum to 1 over the classes"""
    backbone: nn.Module = field(default_factory=nn.Module)
    """with the adapter in it, for losses of weights"""

    @cached_property
    def scores(self) -> Tensor:
        """The decoder's scores (B, num_classes, H, W); asking for them costs its forward once more."""
        return self.scored()


class ExtraLoss(Protocol):
    """Named losses to be added to the decoder's, each a mean over the batch. It has no parameters of its own."""

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Scalars by names that begin with ``loss_``, under which they are logged."""


def with_extras(losses: dict[str, Tensor], extras: Sequence[ExtraLoss], inputs: LossInputs) -> dict[str, Tensor]:
    """``losses`` and those of ``extras``.

    Raises:
        ValueError: a name is taken or does not begin with ``loss_``.
    """
    for loss in extras:
        found = loss(inputs)
        for name in found:
            if not name.startswith("loss_") or name in losses:
                raise ValueError(
                    f"{type(loss).__name__} names a loss {name!r}: it must begin with loss_ and be its own"
                )
        losses = losses | found
    return losses
