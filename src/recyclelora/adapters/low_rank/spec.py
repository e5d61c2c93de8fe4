"""What to adapt and how: plain dataclasses, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from recyclelora.adapters.linalg.rrqr import Precision
from recyclelora.adapters.low_rank.inits import INITIALIZERS, RRQR_MAJOR, RRQR_MINOR

ScaleRule = Literal["total_rank", "sqrt_rank", "fixed"]
Pivoting = Literal["greedy", "strong"]
MixedPrecision = Literal["fold", "subtract"]


@dataclass(frozen=True)
class BranchSpec:
    """One branch: its initialisation, rank, and how its two factors train.

    Attributes:
        init: a name in ``init.INITIALIZERS``.
        rank: rows of A, columns of B.
        lr_mult: learning-rate multiplier of the branch; ``lr_mult_b`` multiplies B's once more (LoRA+).
        weight_decay: weight decay of both factors.
        train_a, train_b: whether A and B train.
    """

    init: str
    rank: int
    lr_mult: float = 1.0
    lr_mult_b: float = 1.0
    weight_decay: float = 0.0
    train_a: bool = True
    train_b: bool = True

    def __post_init__(self) -> None:
        if self.init not in INITIALIZERS:
            raise ValueError(f"init={self.init!r} is unknown; choose one of {', '.join(INITIALIZERS)}")
        if self.rank <= 0:
            raise ValueError(f"rank={self.rank}: a rank is at least 1")


@dataclass(frozen=True)
class AdapterSpec:
    """A low-rank adapter of a whole model; LoRA, PiSSA, MiLoRA, SoMA, OLoRA and RecycleLoRA differ by values only.

    Attributes:
        main, sub: the branches; ``sub`` may be absent.
        alpha, scale_rule, scale: s = alpha / (r_m + r_s), alpha / sqrt(r_m + r_s), or ``scale`` itself (``fixed``).
        residual: subtract the initial branches from the frozen weight, so that training starts at the pretrained model.
        split_qkv: adapt q, k and v of a fused qkv linear separately.
        train_bias: train the biases of adapted layers.
        targets, blocks: see `selection.select_linears`.
        precision: of the pivoted QR.
        mixed_precision: under autocast, fold the initial branches into the frozen weight as in float32, or subtract
            them in the forward (see `low_rank`).
        pivoting: greedy as in the paper, or strong rank-revealing QR (see `strong`) with the bound f = ``pivoting_f``.
    """

    main: BranchSpec
    sub: BranchSpec | None = None
    alpha: float = 1.0
    scale_rule: ScaleRule = "total_rank"
    scale: float | None = None
    residual: bool = True
    split_qkv: bool = False
    train_bias: bool = False
    targets: tuple[str, ...] = ("*",)
    blocks: str = ":"
    precision: Precision = "float64"
    pivoting: Pivoting = "greedy"
    pivoting_f: float = 2.0
    mixed_precision: MixedPrecision = "fold"

    def __post_init__(self) -> None:
        if self.scale_rule not in ("total_rank", "sqrt_rank", "fixed"):
            raise ValueError(f"scale_rule={self.scale_rule!r} is unknown; choose total_rank, sqrt_rank or fixed")
        if (self.scale_rule == "fixed") != (self.scale is not None):
            raise ValueError("scale is given exactly when scale_rule='fixed'; the other rules compute it from alpha")
        if self.layer_scale <= 0:
            raise ValueError(f"alpha={self.alpha}, scale={self.scale}: the layer's scale must be positive")
        if self.mixed_precision not in ("fold", "subtract"):
            raise ValueError(f"mixed_precision={self.mixed_precision!r} is unknown; choose fold or subtract")
        if self.pivoting not in ("greedy", "strong"):
            raise ValueError(f"pivoting={self.pivoting!r} is unknown; choose greedy or strong")
        if self.pivoting == "strong":
            self._check_strong()

    def _check_strong(self) -> None:
        if not 1 <= self.pivoting_f < math.inf:
            raise ValueError(f"pivoting_f={self.pivoting_f}: the bound of strong pivoting is a finite number from 1 on")
        if self.precision != "float64":
            raise ValueError("pivoting=strong works in float64 only; leave precision=float64")
        for names in (RRQR_MAJOR, RRQR_MINOR):
            ranks = {branch.rank for branch in self.branches.values() if branch.init in names}
            if len(ranks) > 1:
                raise ValueError("pivoting=strong: two branches in the same directions need the same rank")

    @property
    def branches(self) -> dict[str, BranchSpec]:
        """The branches by name, main first."""
        return {"main": self.main} if self.sub is None else {"main": self.main, "sub": self.sub}

    @property
    def layer_scale(self) -> float:
        """s of ``y = x W_res^T + b + s (x A^T) B^T``."""
        if self.scale is not None:
            return self.scale
        total = sum(branch.rank for branch in self.branches.values())
        return self.alpha / (total if self.scale_rule == "total_rank" else total**0.5)
