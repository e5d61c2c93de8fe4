"""VeRA (Kopiczko et al., 2024, arXiv 2310.11454): one frozen random pair for all layers, two small vectors for each.

W' = W0 + diag(b) B diag(d) A. A and B come from a seed bit for bit, so that no file has to hold them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.config import VeraConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod, replace


class Projections(nn.Module):
    """The pair that all layers share: ``a`` (rank, widest in) and ``b`` (widest out, rank); a layer takes a corner.

    Kaiming-uniform as in PEFT: bounds sqrt(6 / widest in) and sqrt(6 / rank). Not in ``state_dict``.
    """

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, rank: int, linears: Iterable[nn.Linear], seed: int) -> None:
        super().__init__()
        shapes = [(linear.out_features, linear.in_features, linear.weight.device) for linear in linears]
        widest_out, widest_in = max(out for out, _, _ in shapes), max(width for _, width, _ in shapes)
        bits = np.random.PCG64(seed)
        a = uniform(bits, (rank, widest_in), math.sqrt(6 / widest_in))
        b = uniform(bits, (widest_out, rank), math.sqrt(6 / rank))
        self.register_buffer("a", a.to(shapes[0][2]), persistent=False)
        self.register_buffer("b", b.to(shapes[0][2]), persistent=False)


def uniform(bits: np.random.PCG64, shape: tuple[int, int], bound: float) -> torch.Tensor:
    """U(-bound, bound), float32: 24 bits of every draw, because NumPy keeps its bit streams but not its distributions
    the same for ever."""
    draws = (bits.random_raw(shape[0] * shape[1]) >> np.uint64(40)).astype(np.float64)
    return torch.from_numpy((bound * (draws * 2.0**-23 - 1)).astype(np.float32).reshape(shape))


class VeRALinear(AdaptedLinear):
    """y = x W0^T + bias + b * ((d * (x A^T)) B^T); ``vera_d`` (rank,) and ``vera_b`` (out,) train, b from zero."""

    def __init__(self, linear: nn.Linear, projections: Projections, d_initial: float) -> None:
        super().__init__(linear)
        self.projections = projections
        device, rank = linear.weight.device, projections.a.shape[0]
        self.vera_d = nn.Parameter(torch.full((rank,), d_initial, device=device))
        self.vera_b = nn.Parameter(torch.zeros(self.out_features, device=device))

    def corner(self) -> tuple[torch.Tensor, torch.Tensor]:
        """This layer's A (rank, in) and B (out, rank)."""
        return self.projections.a[:, : self.in_features], self.projections.b[: self.out_features]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        a, b = self.corner()
        base = F.linear(x, self.weight, self.bias)
        hidden = F.linear(x, a.to(x.dtype)) * self.vera_d.to(base.dtype)
        return base + F.linear(hidden, b.to(x.dtype)) * self.vera_b.to(base.dtype)

    def merged_weight(self) -> torch.Tensor:
        """W0 + diag(b) B diag(d) A (out, in), float64."""
        a, b = self.corner()
        return self.weight.double() + self.vera_b[:, None] * (b.double() @ (self.vera_d[:, None] * a.double()))


class VeRA(ReplacingMethod):
    """VeRA as a method; the rank of the shared pair may exceed a layer's width."""

    options: VeraConfig
    room = None

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        linears, o = self.check(model), self.options
        projections = Projections(o.rank, linears.values(), o.projection_seed)
        layers = {name: VeRALinear(linear, projections, o.d_initial) for name, linear in linears.items()}
        replace(model, layers)
        return self.adapted(model, layers, context)
