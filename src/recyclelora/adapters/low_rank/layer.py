"""The low-rank layer: a frozen weight plus named branches, y = x W_res^T + b + s (x A^T) B^T.

The frozen weight never changes after construction; merging makes a new tensor. Adapters are float32 whatever the
backbone's precision, because bfloat16 would round small steps on the 0/1 entries of A away: ``.to(torch.bfloat16)``
leaves them as they are.

How exactly a layer starts as the pretrained one:

- float32: W_res = W0 - s sum_i B0_i A0_i, subtracted in float64 and rounded once; outputs differ by float32 rounding.
- bfloat16, float16: rounding W_res would change the model by up to 2^-9 (2^-12) of each weight touched, and rounding B
  and A loses steps that are small beside them. So W0 stays as it is, and each forward adds s (B A - B0 A0) as
  s ((B - B0) A + B0 (A - A0)), with the differences taken in float32: exactly nothing at the start, bit for bit, and
  small updates survive the rounding to the precision of the products. It costs a product of twice the rank.
- float32 under autocast: the same where the layer is made for it (``subtracts``). Otherwise W_res and the branches are
  rounded like every weight, and most of the first steps with them (benchmarks/first_update.py).

What ``weight`` in a state dict holds, W0 or W_res, is written beside it, and a layer of the other form refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from recyclelora.adapters.low_rank.factors import Factors
from recyclelora.adapters.low_rank.fused import autocasted, fused_low_rank

LOW_PRECISION = (torch.bfloat16, torch.float16)
Conversion = Callable[[torch.Tensor], torch.Tensor]

HOLDS = "recyclelora.weight"
"""In the metadata of a state dict: what the frozen ``weight`` of a layer that starts as the pretrained one is."""
PRETRAINED, RESIDUAL = "W0", "W0 - s B0 A0"


class Branch(nn.Module):
    """One adapter: ``lora_b`` (out, rank) times ``lora_a`` (rank, in).

    ``initial`` keeps B0 and A0 on the CPU as plain data: outside ``state_dict``, untouched by ``.to()``. Parameters
    move to devices and wider dtypes, but stay float32 when the model is made bfloat16 or float16.
    """

    initial_a: torch.Tensor
    initial_b: torch.Tensor
    """beside the parameters, once `hold_initial` has put them there; no buffers: DDP would send them in every step"""

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

    def hold_initial(self) -> None:
        """Keep A0 and B0 beside the parameters too, for a layer that subtracts them in every forward."""
        device = self.lora_a.device
        self.initial_a = self.initial.dense_a(self.lora_a.shape[1]).to(device)
        self.initial_b = self.initial.b.to(device)

    def _apply(self, fn: Conversion, recurse: bool = True) -> Branch:
        exact = _without_rounding(fn)
        super()._apply(exact, recurse)  # type: ignore[no-untyped-call]
        if hasattr(self, "initial_a"):
            self.initial_a, self.initial_b = exact(self.initial_a), exact(self.initial_b)
        return self

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
        residual: start as ``linear``, by freezing ``W_res = W0 - s sum_i B0_i A0_i`` or by subtracting the initial
            branches in the forward (``subtracts``); otherwise freeze W0.
        train_bias: train a copy of the bias, at least float32.
        subtract: subtract in the forward also where the weight is float32, for forwards under autocast; always so
            where it is bfloat16 or float16.
    """

    def __init__(
        self,
        linear: nn.Linear,
        branches: Mapping[str, Branch],
        *,
        scale: float,
        residual: bool = True,
        train_bias: bool = False,
        subtract: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale, self.residual = scale, residual
        self.branch_names = tuple(branches)
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.subtracts = bool(self._initial()) and (subtract or linear.weight.dtype in LOW_PRECISION)
        if self.subtracts:
            self._hold_initial()
        folded = [] if self.subtracts else self._initial()
        self.weight = nn.Parameter(residual_weight(linear.weight, folded, scale), requires_grad=False)
        bias = None if linear.bias is None else linear.bias.detach()
        if bias is not None and train_bias:
            bias = bias.to(torch.promote_types(bias.dtype, torch.float32), copy=True)
        self.bias = None if bias is None else nn.Parameter(bias, train_bias)

    def branches(self) -> dict[str, Branch]:
        """The branches by name."""
        return {name: getattr(self, name) for name in self.branch_names}

    def _initial(self) -> list[Factors]:
        """What has to be taken from W0 for the layer to start as the pretrained one."""
        initial = [branch.initial for branch in self.branches().values()]
        return [factors for factors in initial if factors.b.any()] if self.residual else []

    def _hold_initial(self) -> None:
        for branch in self.branches().values():
            branch.hold_initial()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        a, b = self._factors()
        return fused_low_rank(x, self.weight, self.bias, self.scale, a, b)

    def _factors(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The A (rank, in) and B (out, rank) whose products, times s, the frozen layer lacks."""
        parts = self.branches().values()
        a: list[torch.Tensor] = [part.lora_a for part in parts]
        b: list[torch.Tensor] = [part.lora_b for part in parts]
        if not self.subtracts:
            return a, b
        a_changes = [part.lora_a - part.initial_a for part in parts]
        b_changes = [part.lora_b - part.initial_b for part in parts]
        return a + a_changes, b_changes + [part.initial_b for part in parts]

    def _apply(self, fn: Conversion, recurse: bool = True) -> LowRankLinear:
        """`nn.Module._apply`, which ``.to()`` calls; a residual is not rounded: the pretrained weight is."""
        before = self.weight.detach()
        exact = _without_rounding(fn)  # for the bias, if it trains; branches see to theirs
        super()._apply(lambda tensor: (exact if tensor.requires_grad else fn)(tensor), recurse)  # type: ignore[no-untyped-call]
        if self._initial() and not self.subtracts and self.weight.dtype in LOW_PRECISION:
            pretrained = before.to(self.weight.device).double()
            for branch in self.branches().values():
                pretrained = pretrained + self.scale * branch.initial_product()
            self.weight = nn.Parameter(pretrained.to(self.weight.dtype), requires_grad=False)
            self.subtracts = True
            self._hold_initial()
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None and self._initial():
            metadata[prefix[:-1]][HOLDS] = self._holds()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], *rest: Any
    ) -> None:
        """Refuse a frozen weight of the other form; without a mark only the very tensor that is here already counts."""
        given = state_dict.get(f"{prefix}weight")
        if self._initial() and given is not None and given.shape == self.weight.shape:
            holds = local_metadata.get(HOLDS)
            unmarked = holds is None and not torch.equal(given.to(self.weight), self.weight)
            if unmarked or holds not in (None, self._holds()):
                errors = rest[-1]
                errors.append(
                    f"{prefix}weight: the state holds {holds or 'W0 or W0 - s B0 A0, it does not say which'}, this "
                    f"layer {self._holds()}; give both models the same precision before one is saved, or merge() it"
                )
                return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def _holds(self) -> str:
        return PRETRAINED if self.subtracts else RESIDUAL

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
        """The weight that computes the same, as a new tensor (out, in) in the frozen weight's dtype.

        W_res + s B A (or W0 + s (B A - B0 A0)) is summed in float64 and rounded once: each entry errs by at most
        2^-24 of itself in float32, 2^-9 in bfloat16 (where smaller updates vanish), 2^-12 in float16.
        """
        total = self.weight.double()
        for branch in self.branches().values():
            change = branch.product() - branch.initial_product() if self.subtracts else branch.product()
            total = total + self.scale * change
        return total.to(self.weight.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """An ordinary linear layer that computes the same, sharing no tensor with this one."""
        bias = None if self.bias is None else self.bias.detach().to(self.weight.dtype, copy=True)
        return frozen_linear(self.merged_weight(), bias)

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
        x = autocasted(x)  # once, so that the three keep the same tensor for their backward
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


def _without_rounding(fn: Conversion) -> Conversion:
    """``fn`` (a move, a cast) without a cast of wider tensors to bfloat16 or float16."""

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        converted = fn(tensor)
        rounded = converted.dtype in LOW_PRECISION and tensor.dtype not in LOW_PRECISION
        return tensor.to(converted.device) if rounded else converted

    return convert
