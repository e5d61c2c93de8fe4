"""The linear layers of a transformer block in every form whose cost is compared; the benchmarks of steps import this.

A form turns the frozen layers of a block into adapted ones. Another method is one more entry in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.init import Factors
from recyclelora.adapters.low_rank import Branch, LowRankLinear

RANKS = {"main": 32, "sub": 4}
SCALE = 1 / 36
NORMALISED = ("qkv", "fc1")  # their inputs follow a norm: float32 under autocast
Linears = dict[str, nn.Linear]
Form = Callable[[nn.Linear], nn.Module]


def shapes(width: int) -> dict[str, tuple[int, int]]:
    """(in, out) of the four linear layers of a block."""
    return {"qkv": (width, 3 * width), "proj": (width, width), "fc1": (width, 4 * width), "fc2": (4 * width, width)}


def frozen_linears(width: int, seed: int = 0) -> Linears:
    """Random frozen layers of one block."""
    torch.manual_seed(seed)
    return {name: nn.Linear(*sizes).requires_grad_(False) for name, sizes in shapes(width).items()}


class Adapted(nn.Module):
    """A frozen layer with the factors A_i (rank, in) and B_i (out, rank), for forms that are not the project's own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        factors = random_factors(linear)
        self.a = nn.ParameterList([factor.a for factor in factors.values()])
        self.b = nn.ParameterList([factor.b for factor in factors.values()])


class TwoBranches(Adapted):
    """As published: each branch is a product of its own, added to the frozen layer's output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        y = self.linear(x)
        for a, b in zip(self.a, self.b, strict=True):
            y = y + F.linear(F.linear(x, a), b) * SCALE
        return y


class Concatenated(Adapted):
    """All branches as one pair of products, through plain autograd."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        a, b = torch.cat([*self.a]), torch.cat([*self.b], dim=1) * SCALE
        return self.linear(x) + F.linear(F.linear(x, a), b)


def random_factors(linear: nn.Linear) -> dict[str, Factors]:
    """Factors of both branches; their values do not matter for the cost."""
    sizes = {name: (linear.out_features, rank, linear.in_features) for name, rank in RANKS.items()}
    return {
        name: Factors(b=torch.randn(o, r) / o**0.5, a=torch.randn(r, i) / i**0.5) for name, (o, r, i) in sizes.items()
    }


def fused(linear: nn.Linear) -> nn.Module:
    """The project's low-rank layer."""
    branches = {name: Branch(factors, linear.in_features) for name, factors in random_factors(linear).items()}
    return LowRankLinear(linear, branches, scale=SCALE)


# What every other form is compared with comes first.
FORMS: dict[str, Form] = {
    "frozen": lambda linear: linear,
    "two_branches": TwoBranches,
    "concatenated": Concatenated,
    "recyclelora": fused,
}
