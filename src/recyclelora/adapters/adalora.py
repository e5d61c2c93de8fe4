"""AdaLoRA (Zhang et al., 2023, arXiv 2303.10512): ranks go to the layers where they matter most.

W' = W0 + s P diag(lambda) Q, a triplet (column of P, value, row of Q) for each rank; a budget over all layers shrinks
during training and the least important triplets lose their value; P and Q are kept near orthonormal by a penalty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.config import AdaLoraConfig
from recyclelora.adapters.low_rank.factors import branch_rng
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.rank_budget import BudgetSchedule, RankAllocator
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod

START_DEVIATION = 0.02
"""Standard deviation of P and Q at the start, as in the authors' code and PEFT."""


class TripletLinear(AdaptedLinear):
    """y = x W0^T + b + s ((x Q^T) * lambda) P^T with ``lora_a`` Q (rank, in), ``lora_e`` lambda (rank,) and ``lora_b``
    P (out, rank)."""

    def __init__(self, linear: nn.Linear, p: Tensor, values: Tensor, q: Tensor, scale: float) -> None:
        super().__init__(linear)
        self.scale = scale
        device = linear.weight.device
        self.lora_a, self.lora_e, self.lora_b = (nn.Parameter(part.to(device, copy=True)) for part in (q, values, p))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        base = F.linear(x, self.weight, self.bias)
        hidden = F.linear(x, self._scaled_a().to(x.dtype))
        return base + F.linear(hidden, self.lora_b.to(x.dtype))

    def _scaled_a(self) -> Tensor:
        return (self.scale * self.lora_e)[:, None] * self.lora_a

    def merged_weight(self) -> Tensor:
        """W0 + s P diag(lambda) Q (out, in), float64."""
        values = self.scale * self.lora_e.double()
        return self.weight.double() + self.lora_b.double() @ (values[:, None] * self.lora_a.double())


def departures(layers: Iterable[TripletLinear]) -> Tensor:
    """|Q Q^T - I| and |P^T P - I| (Frobenius) of every layer in turn, (2 layers,); 0 is orthonormal."""
    norms = []
    for layer in layers:
        for gram in (layer.lora_a @ layer.lora_a.T, layer.lora_b.T @ layer.lora_b):
            norms.append((gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)).norm())
    return torch.stack(norms)


@dataclass(frozen=True)
class Orthogonality:
    """gamma times the mean of `departures` over layers and factors, the regulariser of equation 4 in the form that the
    authors' code and PEFT run: norms, not squared."""

    layers: tuple[TripletLinear, ...]
    gamma: float

    def penalty(self) -> Tensor:
        """A scalar loss."""
        return self.gamma * departures(self.layers).mean()


class AdaLoRA(ReplacingMethod):
    """AdaLoRA as a method."""

    options: AdaLoraConfig
    room = "init_rank"

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        self._schedule(len(self.check(model)), context.max_steps)  # refuses before anything is changed
        return super().apply(model, context)

    def adapted(self, model: nn.Module, layers: Mapping[str, TripletLinear], context: AdapterContext) -> Adapted:
        """With the penalty, and what shares the budget out between the layers."""
        o = self.options
        allocator = RankAllocator(layers, self._schedule(len(layers), context.max_steps), o.beta1, o.beta2)
        return dataclasses.replace(
            super().adapted(model, layers, context),
            penalty=Orthogonality(tuple(layers.values()), o.orthogonality).penalty if o.orthogonality else None,
            after_step=allocator.after_step, training_state=allocator, constrain=allocator.constrain,
        )  # fmt: skip

    def _schedule(self, count: int, max_steps: int) -> BudgetSchedule:
        o = self.options
        return BudgetSchedule(o.init_rank * count, o.target_rank * count, max_steps, *o.steps(max_steps))

    def layer(self, linear: nn.Linear, name: str, seed: int) -> TripletLinear:
        """With small random triplets of value zero."""
        rng, rank = branch_rng(seed, name, "main"), self.options.init_rank
        shapes = (linear.out_features, rank), (rank, linear.in_features)
        p, q = (torch.from_numpy(rng.normal(0.0, START_DEVIATION, shape)).float() for shape in shapes)
        return TripletLinear(linear, p, torch.zeros(rank), q, self.options.alpha / rank)
