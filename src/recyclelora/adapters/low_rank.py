"""The low-rank layer: a frozen weight plus named branches, y = x W_res^T + b + s (x A^T) B^T.

The frozen weight never changes after construction; merging makes a new tensor. Adapters are float32 whatever the
backbone's precision, because bfloat16 would round small steps on the 0/1 entries of A away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.init import Factors


class Branch(nn.Module):
    """One adapter: ``lora_b`` (out, rank) times ``lora_a`` (rank, in).

    ``initial`` keeps B0 and A0 on the CPU as plain data: outside ``state_dict``, untouched by ``.to()``.
    """

    def __init__(
        self,
        initial: Factors,
        in_features: int,
        *,
        train_a: bool = True,
        train_b: bool = True,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.initial = initial
        a, b = initial.dense_a(in_features), initial.b
        self.lora_a = nn.Parameter(a.to(device, copy=True), requires_grad=train_a)
        self.lora_b = nn.Parameter(b.to(device, copy=True), requires_grad=train_b)

    def product(self) -> torch.Tensor:
        """B A (out, in), float64."""
        return self.lora_b.detach().double() @ self.lora_a.detach().double()

    def initial_product(self) -> torch.Tensor:
        """B0 A0 (out, in), float64, on the device of the parameters."""
        a, b = self.initial.dense_a(self.lora_a.shape[1]), self.initial.b
        return b.to(self.lora_b.device).double() @ a.to(self.lora_a.device).double()


class LowRankLinear(nn.Module):
    """Takes the place of an ``nn.Linear``.

    Args:
        linear: the pretrained layer; its tensors are never changed.
        branches: name -> branch (``main`` and optionally ``sub``); they become attributes.
        scale: s, common to all branches.
        residual: freeze ``W_res = W0 - s sum_i B0_i A0_i``, so the layer starts as ``linear``; otherwise freeze W0.
        train_bias: train a copy of the bias.
    """

    def __init__(
        self,
        linear: nn.Linear,
        branches: Mapping[str, Branch],
        *,
        scale: float,
        residual: bool = True,
        train_bias: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale, self.residual = scale, residual
        initial = [branch.initial for branch in branches.values()] if residual else []
        self.weight = nn.Parameter(residual_weight(linear.weight, initial, scale), requires_grad=False)
        bias = None if linear.bias is None else linear.bias.detach()
        self.bias = None if bias is None else nn.Parameter(bias.clone() if train_bias else bias, train_bias)
        self.branch_names = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)

    def branches(self) -> dict[str, Branch]:
        """The branches by name."""
        return {name: getattr(self, name) for name in self.branch_names}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        base = F.linear(x, self.weight, self.bias)
        parts = list(self.branches().values())
        # All branches as one pair of products; s goes into the small factor, where it is applied in float32.
        a = torch.cat([part.lora_a for part in parts])
        b = torch.cat([part.lora_b for part in parts], dim=1) * self.scale
        hidden = F.linear(x, a.to(x.dtype)).reshape(-1, a.shape[0])
        flat = base.reshape(-1, self.out_features)
        return torch.addmm(flat, hidden, b.t().to(x.dtype)).view(base.shape)

    @torch.no_grad()
    def delta_weight(self) -> torch.Tensor:
        """What training added to W0: s (B A - B0 A0), or s B A without a residual; (out, in), float32."""
        total = torch.zeros(self.out_features, self.in_features, dtype=torch.float64, device=self.weight.device)
        for branch in self.branches().values():
            total += branch.product()
            if self.residual:
                total -= branch.initial_product()
        return (self.scale * total).float()

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """W_res + s B A as a new tensor (out, in): summed in float64, returned in the weight's dtype."""
        total = self.weight.double()
        for branch in self.branches().values():
            total = total + self.scale * branch.product()
        return total.to(self.weight.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """An ordinary linear layer that computes the same, sharing no tensor with this one."""
        return frozen_linear(self.merged_weight(), None if self.bias is None else self.bias.detach().clone())

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        ranks = {name: branch.initial.rank for name, branch in self.branches().items()}
        return f"in_features={self.in_features}, out_features={self.out_features}, ranks={ranks}, scale={self.scale:g}"


class SplitQKV(nn.Module):
    """Takes the place of a fused qkv linear (3 d x d): three low-rank layers whose outputs are concatenated."""

    def __init__(self, q: LowRankLinear, k: LowRankLinear, v: LowRankLinear) -> None:
        super().__init__()
        self.q, self.k, self.v = q, k, v
        self.in_features = q.in_features
        self.out_features = q.out_features + k.out_features + v.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., q | k | v)."""
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One ordinary fused linear layer."""
        parts = [part.merged() for part in (self.q, self.k, self.v)]
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        return frozen_linear(torch.cat([part.weight for part in parts]), bias)


def split_rows(linear: nn.Linear) -> dict[str, nn.Linear]:
    """The q, k and v thirds of a fused linear as layers of their own, viewing the same tensors."""
    biases = [None] * 3 if linear.bias is None else list(linear.bias.detach().chunk(3))
    weights = linear.weight.detach().chunk(3)
    return {name: frozen_linear(weight, bias) for name, weight, bias in zip("qkv", weights, biases, strict=True)}


@torch.no_grad()
def residual_weight(weight: torch.Tensor, initial: Sequence[Factors], scale: float) -> torch.Tensor:
    """W0 - s sum_i B0_i A0_i (out, in), subtracted in float64; a new tensor unless there is nothing to subtract.

    Where every A0 selects columns (0/1 rows), only those columns are touched.
    """
    initial = [factors for factors in initial if factors.b.any()]
    if not initial:
        return weight.detach()
    device, in_features = weight.device, weight.shape[1]
    positions = [torch.arange(in_features) if f.a_index is None else f.a_index for f in initial]
    touched = torch.unique(torch.cat(positions))
    part = weight[:, touched.to(device)].double()
    for factors in initial:
        a = factors.dense_a(in_features)[:, touched].to(device).double()
        part -= scale * (factors.b.to(device).double() @ a)
    result = weight.detach().clone()
    result[:, touched.to(device)] = part.to(weight.dtype)
    return result


def frozen_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A frozen ``nn.Linear`` around existing tensors (out, in) and (out,), without initialising new ones."""
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
