"""DeLoRA (Bini et al., ICLR 2025, arXiv 2503.18225): direction and length of a low-rank update learn apart.

W' = W0 + B diag(lambda / (r |a_i| |b_i|)) A diag(w) with the rows a_i of A, the columns b_i of B and the norms w (in,)
of the columns of W0: however A and B move, the update's Frobenius norm is at most lambda max(w).

A starts kaiming-uniform and B at zero, with norms of at least 1e-4, as in PEFT. So the first step of an optimizer that
normalises gradients already takes every b_i past that floor, and the update to its full length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.low_rank.factors import Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.init_random import kaiming
from recyclelora.adapters.products.config import DeloraConfig
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod

FLOOR = 1e-4
"""No norm is taken for less, so that B may start at zero."""


class DeLoRALinear(AdaptedLinear):
    """y = x W0^T + b + ((x * w) A^T * c) B^T with c_i = lambda / (r |a_i| |b_i|).

    ``lora_a`` (rank, in), ``lora_b`` (out, rank) and ``lora_lambda`` (1,) train.
    """

    widths: Tensor

    def __init__(self, linear: nn.Linear, start: Factors, strength: float) -> None:
        super().__init__(linear)
        self.train_factors(start)
        self.lora_lambda = nn.Parameter(torch.full((1,), strength, device=linear.weight.device))
        self.register_buffer("widths", linear.weight.detach().float().norm(dim=0), persistent=False)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A diag(w) (rank, in) and B diag(c) (out, rank), float32."""
        lengths = self.lora_a.norm(dim=1).clamp_min(FLOOR) * self.lora_b.norm(dim=0).clamp_min(FLOOR)
        return self.lora_a * self.widths, self.lora_b * (self.lora_lambda / len(lengths) / lengths)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        a, b = self.factors()
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype))

    def merged_weight(self) -> Tensor:
        """W0 + B diag(c) A diag(w) (out, in), float64."""
        a, b = self.factors()
        return self.weight.double() + b.double() @ a.double()


class DeLoRA(ReplacingMethod):
    """DeLoRA as a method."""

    options: DeloraConfig

    def layer(self, linear: nn.Linear, name: str, seed: int) -> DeLoRALinear:
        """With A from kaiming-uniform draws and B at zero."""
        start = kaiming(LayerWeight(linear.weight, 1.0), self.options.rank, branch_rng(seed, name, "main"))
        return DeLoRALinear(linear, start, self.options.strength)
