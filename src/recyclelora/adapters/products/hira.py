"""HiRA (Huang et al., ICLR 2025): W' = W0 * (1 + B A), entry by entry, an update whose rank the factors do not bound.

A starts kaiming-uniform and B at zero, as in PEFT; there is no scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.low_rank.factors import Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.init_random import kaiming
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.products.config import HiraConfig
from recyclelora.adapters.replacing import AdaptedLinear, checked_linears, replace
from recyclelora.adapters.state import uniform_rules


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


@dataclass(frozen=True)
class HiRA:
    """HiRA as a method."""

    options: HiraConfig

    def check(self, model: nn.Module) -> dict[str, nn.Linear]:
        """See `method.Method`; gives the layers that will be adapted, by name."""
        return checked_linears(model, self.options, self.options.rank)

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        linears, o = self.check(model), self.options
        replace(model, {name: self._layer(linear, context.seed, name) for name, linear in linears.items()})
        return Adapted(uniform_rules(model, o.lr_mult, o.weight_decay, "hira"))

    def _layer(self, linear: nn.Linear, seed: int, name: str) -> HiRALinear:
        return HiRALinear(
            linear, kaiming(LayerWeight(linear.weight, 1.0), self.options.rank, branch_rng(seed, name, "main"))
        )
