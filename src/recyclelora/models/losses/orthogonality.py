"""Orthogonality of low-rank adapters, in the manner of PEGO (Hu et al., ECCV 2024).

For the weight W (out, in) of an adapted layer and the A (rank, in) of its adapters: overlap(W, A) and overlap(A_i, A_j)
with overlap(X, Y) = |X Y^T|_F^2 / (|X|_F^2 |Y|_F^2), which lies in [0, 1] and cannot be lessened by smaller numbers.
PEGO's own norms and weights were not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.models.losses.config import OrthogonalityConfig
from recyclelora.models.losses.loss import LossInputs


@dataclass(frozen=True)
class Orthogonality:
    """See the module."""

    options: OrthogonalityConfig

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """``loss_orthogonality``: mean overlap with the pretrained weights and mean overlap of adapters, weighted."""
        layers = list(adapted_layers(inputs.backbone))
        kept = [overlap(weight, a) for weight, rows in layers for a in rows]
        apart = [overlap(a, b) for _, rows in layers for a, b in combinations(rows, 2)]
        loss = self.options.weight * torch.stack(kept).mean()
        if apart:
            loss = loss + self.options.between * torch.stack(apart).mean()
        return {"loss_orthogonality": loss}


def adapted_layers(backbone: nn.Module) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The frozen weight of every low-rank layer, and A of its adapters."""
    for module in backbone.modules():
        layer: Any = module
        if callable(getattr(module, "branches", None)):
            yield layer.weight.detach(), [branch.lora_a for branch in layer.branches().values()]


def overlap(x: Tensor, y: Tensor) -> Tensor:
    """|X Y^T|_F^2 / (|X|_F^2 |Y|_F^2) of (m, n) and (k, n); 0 is orthogonal."""
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        return (x @ y.T).square().sum() / (x.square().sum() * y.square().sum()).clamp(min=torch.finfo(x.dtype).tiny)
