"""DoRA (Liu et al., 2024, arXiv 2402.09353): direction and magnitude of every weight row learn apart.

W' = m (W0 + s B A) / |W0 + s B A|, the norm per output row and without gradient (section 4.3 of the paper).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.config import DoraConfig
from recyclelora.adapters.low_rank.factors import Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.init_random import kaiming
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod
from recyclelora.adapters.state import ParameterRule


class DoRALinear(AdaptedLinear):
    """y = g * (x W0^T + s (x A^T) B^T) + b with g = m / |W0 + s B A| (out,).

    ``magnitude`` m (out,) starts as the row norms of W0 and B as zero, so that g is exactly 1 at the start.
    """

    squares: torch.Tensor

    def __init__(self, linear: nn.Linear, initial: Factors, scale: float) -> None:
        super().__init__(linear)
        self.scale = scale
        self.train_factors(initial)
        squares = linear.weight.detach().float().square().sum(1)
        self.register_buffer("squares", squares, persistent=False)
        self.magnitude = nn.Parameter(squares.sqrt())

    @torch.no_grad()
    def norms(self) -> torch.Tensor:
        """|W0 + s B A| of every row (out,), float32, without forming the sum.

        |w + s b A|^2 = |w|^2 + 2 s b . (A w) + s^2 b (A A^T) b^T for each row w of W0 and b of B.
        """
        with torch.autocast(self.weight.device.type, enabled=False):
            a, b = self.lora_a, self.scale * self.lora_b
            cross = F.linear(self.weight.float(), a)  # (out, rank)
            squares: torch.Tensor = self.squares + (b * (2 * cross + b @ (a @ a.T))).sum(1)
        return squares.clamp_min(torch.finfo(torch.float32).tiny).sqrt()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        hidden = F.linear(x, self.lora_a.to(x.dtype))
        y = F.linear(x, self.weight) + F.linear(hidden, (self.scale * self.lora_b).to(x.dtype))
        y = y * (self.magnitude / self.norms()).to(y.dtype)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def merged_weight(self) -> torch.Tensor:
        """m (W0 + s B A) / |W0 + s B A| (out, in), float64."""
        direction = self.weight.double() + self.scale * (self.lora_b.double() @ self.lora_a.double())
        norms: torch.Tensor = torch.linalg.vector_norm(direction, dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        return direction * (self.magnitude.double() / norms)[:, None]


class DoRA(ReplacingMethod):
    """DoRA as a method."""

    options: DoraConfig

    def adapted(self, model: nn.Module, layers: Mapping[str, DoRALinear], context: AdapterContext) -> Adapted:
        """Magnitudes do not decay."""
        factors = ParameterRule(self.options.lr_mult, self.options.weight_decay, "dora")
        magnitude = ParameterRule(self.options.lr_mult, 0.0, "dora.magnitude")
        trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        return Adapted({name: magnitude if name.endswith(".magnitude") else factors for name in trainable})

    def layer(self, linear: nn.Linear, name: str, seed: int) -> DoRALinear:
        """With A from kaiming-uniform draws and B at zero."""
        rank = self.options.rank
        scale = self.options.alpha / rank
        factors = kaiming(LayerWeight(linear.weight, scale), rank, branch_rng(seed, name, "main"))
        return DoRALinear(linear, factors, scale)
