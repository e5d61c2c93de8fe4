"""HiRA (Huang et al., ICLR 2025): W' = W0 * (1 + B A), entry by entry, an update whose rank the factors do not bound.

A starts kaiming-uniform and B at zero, as in PEFT; there is no scale.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.low_rank.factors import Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.init_random import kaiming
from recyclelora.adapters.products.config import HiraConfig
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod


class HiRALinear(AdaptedLinear):
    """y = x W0^T + b + x (W0 * B A)^T; ``lora_a`` (rank, in) and ``lora_b`` (out, rank) train."""

    def __init__(self, linear: nn.Linear, start: Factors) -> None:
        super().__init__(linear)
        self.train_factors(start)

    def update(self) -> Tensor:
        """W0 * B A (out, in), float32: rounded once, beside W0 and not in it, where bfloat16 would lose it."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return self.weight.float() * (self.lora_b @ self.lora_a)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        return F.linear(x, self.weight, self.bias) + F.linear(x, self.update().to(x.dtype))

    def merged_weight(self) -> Tensor:
        """W0 * (1 + B A) (out, in), float64."""
        weight = self.weight.double()
        return weight + weight * (self.lora_b.double() @ self.lora_a.double())


class HiRA(ReplacingMethod):
    """HiRA as a method."""

    options: HiraConfig

    def layer(self, linear: nn.Linear, name: str, seed: int) -> HiRALinear:
        """With A from kaiming-uniform draws and B at zero."""
        start = kaiming(LayerWeight(linear.weight, 1.0), self.options.rank, branch_rng(seed, name, "main"))
        return HiRALinear(linear, start)
