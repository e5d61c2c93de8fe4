"""What training added to a linear layer, as one pair of factors on the pretrained weight.

From ``W = W_res + s sum_i B_i A_i`` and ``W_res = W0 - s sum_i B0_i A0_i`` follows
``W - W0 = s [B_1 ... -B0_1 ...] [A_1; ...; A0_1; ...]``: an ordinary LoRA update of at most twice the rank. Where the
halves share directions (a factor that did not train, B0 = 0) the same product has a lower rank and is written with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recyclelora.adapters.low_rank.layer import LowRankLinear, SplitQKV


@dataclass(frozen=True)
class Update:
    """``W - W0 = scale b a``, and what was added to the bias (out,), if that trained.

    Attributes:
        a: (rank, in) float32.
        b: (out, rank) float32.
    """

    a: Tensor
    b: Tensor
    scale: float
    bias: Tensor | None

    @property
    def rank(self) -> int:
        """Rows of ``a``; 0 where training changed nothing."""
        return self.a.shape[0]


def update_of(layer: LowRankLinear | SplitQKV, bias: Tensor | None) -> Update:
    """The update of an adapted layer whose pretrained bias (out,) is given."""
    parts = [layer.q, layer.k, layer.v] if isinstance(layer, SplitQKV) else [layer]
    factors = [_stacked(part) for part in parts]
    a, b = reduced(torch.cat([a for a, _ in factors]), torch.block_diag(*(b for _, b in factors)))  # type: ignore[no-untyped-call]
    change = _bias_change(parts, bias)
    if len(a) == 0 and change is not None:
        a, b = a.new_zeros(1, a.shape[1]), b.new_zeros(b.shape[0], 1)  # a place for the bias
    return Update(a, b, parts[0].scale, change)


def _stacked(layer: LowRankLinear) -> tuple[Tensor, Tensor]:
    """``[A; A0]`` and ``[B, -B0]`` over all branches; without a residual the initial ones stay away."""
    branches = list(layer.branches().values())
    a = [branch.lora_a.detach() for branch in branches]
    b = [branch.lora_b.detach() for branch in branches]
    if layer.residual:
        a += [branch.initial.dense_a(layer.in_features) for branch in branches]
        b += [-branch.initial.b for branch in branches]
    return torch.cat(a).float(), torch.cat(b, dim=1).float()


def reduced(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Factors (rank, in) and (out, rank) with the product ``b @ a`` and the rank of that product.

    The given ones where they have no rank to spare. Rank is counted in float64, in which exactly shared directions
    leave singular values of rounding only: nothing that float32 can hold is dropped.
    """
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, values, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    rounding = torch.finfo(torch.float64).eps * len(a) * float(r_b.norm() * r_a.norm())
    rank = int((values > rounding).sum())
    if rank == len(a):
        return a, b
    root = values[:rank].sqrt()
    return (root[:, None] * (vt[:rank] @ q_a.T)).float(), (q_b @ u[:, :rank] * root).float()


def _bias_change(parts: list[LowRankLinear], bias: Tensor | None) -> Tensor | None:
    now = [part.bias.detach() for part in parts if part.bias is not None]
    if bias is None or not now:
        return None
    change = torch.cat(now) - bias.detach()
    return change if change.any() else None
