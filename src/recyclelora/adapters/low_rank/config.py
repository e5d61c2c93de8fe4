"""Options of the low-rank family."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from recyclelora.adapters.blocks import check_selection
from recyclelora.adapters.calibration.config import CalibrationConfig
from recyclelora.system.checks import Problem, above_zero, added, at_least, checked, one_of

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.adapters.method import Method

MISSING: Any = "???"
"""OmegaConf's mark of what must be given; adapters alone need no configuration library."""

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045

BY_MOMENTS = (
    "rrqr_major_data", "rrqr_minor_data", "rrqr_null", "lora_null", "corda_kpm", "corda_ipm", "eva",
)  # fmt: skip
BY_GRADIENTS = ("lora_ga", "lora_one")
"""Initialisations that look at data, and at what."""
INITS = (
    "kaiming", "gaussian", "orthogonal", "orthonormal",
    "svd_major", "svd_minor", "svd_minor_left", "svd_minor_unloaded",
    "qr", "rrqr_major", "rrqr_minor", "rrqr_major_values", "rrqr_minor_values",
    *BY_MOMENTS, *BY_GRADIENTS,
)  # fmt: skip
SCALE_RULES = ("total_rank", "sqrt_rank", "fixed")


@dataclass
class BranchConfig:
    """One low-rank pair (A, B) of an adapted layer: how it starts and how fast it learns."""

    init: str = checked(MISSING, one_of, INITS)
    """where A and B start"""
    rank: int = checked(MISSING, at_least, 1)
    """rows of A, columns of B"""
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    lr_mult_b: float = checked(1.0, above_zero)
    """multiplies B's once more (LoRA+)"""
    weight_decay: float = checked(0.0, at_least, 0)
    """of both factors"""
    train_a: bool = True
    """whether A trains"""
    train_b: bool = True
    """whether B trains"""

    def check(self) -> Iterator[Problem]:
        if not (self.train_a or self.train_b):
            yield "train_a", "and train_b are both false: nothing of this branch would train"


@dataclass
class LowRankConfig:
    """The low-rank family: LoRA, PiSSA, MiLoRA, SoMA, OLoRA, RecycleLoRA and every ablation of them."""

    kind: str = "low_rank"
    name: str = MISSING
    alpha: float = checked(1.0, above_zero)
    """the layer's scale is s = alpha / (sum of the ranks), or alpha / sqrt(sum of the ranks)"""
    scale_rule: str = checked("total_rank", one_of, SCALE_RULES)
    """which of these, or ``fixed``: ``scale`` itself"""
    scale: Optional[float] = checked(None, above_zero)
    """s with ``scale_rule=fixed``"""
    residual: bool = True
    """subtract the initial branches from the frozen weight, so that training starts at the pretrained model"""
    split_qkv: bool = False
    """adapt q, k and v of a fused qkv layer separately"""
    train_bias: bool = False
    """train the biases of adapted layers"""
    targets: list[str] = field(default_factory=lambda: ["*"])
    """patterns over the names of linear layers"""
    blocks: str = ":"
    """which blocks, as slices and numbers"""
    precision: str = checked("float64", one_of, ("float64", "float32"))
    """of the pivoted QR"""
    pivoting: str = checked("greedy", one_of, ("greedy", "strong"))
    """greedy as in the paper, or strong rank-revealing QR"""
    pivoting_f: float = checked(2.0, at_least, 1)
    """the bound f of strong pivoting"""
    main: BranchConfig = field(default_factory=BranchConfig)
    """the first pair"""
    sub: Optional[BranchConfig] = None
    """the second; null for one alone"""
    mixed_precision: str = added("fold", one_of, ("fold", "subtract"))
    """``residual`` under autocast: ``subtract`` takes s B0 A0 away in every forward, so that small steps survive;
    ``fold`` once from the frozen weight, as in float32"""
    calibration: CalibrationConfig = added(CalibrationConfig)
    """the images that initialisations look at, where they look at data"""
    rho: float = added(2.0)
    """``eva``: ranks go to the layers where they explain most, at most ``rho`` times ``main.rank`` to one; 1 for equal
    ranks"""

    @property
    def branches(self) -> dict[str, BranchConfig]:
        """The branches by name, main first."""
        return {"main": self.main} if self.sub is None else {"main": self.main, "sub": self.sub}

    @property
    def looks_at(self) -> tuple[str, ...]:
        """What of the data its branches start from: ``moments`` of inputs, ``gradients`` of the loss, or nothing."""
        inits = {branch.init for branch in self.branches.values()}
        kinds = {"moments": BY_MOMENTS, "gradients": BY_GRADIENTS}
        return tuple(kind for kind, names in kinds.items() if inits & {*names})

    @property
    def layer_scale(self) -> float:
        """s of ``y = x W_res^T + b + s (x A^T) B^T``."""
        if self.scale is not None:
            return self.scale
        total = sum(branch.rank for branch in self.branches.values())
        return self.alpha / (total if self.scale_rule == "total_rank" else total**0.5)

    def check(self) -> Iterator[Problem]:
        if self.pivoting == "strong":
            yield from self._check_strong()
        if (self.scale is None) == (self.scale_rule == "fixed"):
            yield "scale", "is needed with scale_rule=fixed, and only there"
        yield from check_selection(self.targets, self.blocks)
        yield from self._check_data()

    def _check_data(self) -> Iterator[Problem]:
        yield from at_least("rho", self.rho, 1)
        inits = [branch.init for branch in self.branches.values()]
        if "gradients" in self.looks_at and self.calibration.folder is not None:
            yield "calibration.folder", "must be null here: gradients need labels, which the sources have"
        if "lora_one" in inits and self.residual:
            yield "residual", "must be false with lora_one, which starts one step down the gradient"
        if "eva" in inits and self.sub is not None:
            yield "sub", "must be null with eva, which shares the ranks of one branch out"
        if "eva" in inits and self.split_qkv:
            yield "split_qkv", "must be false with eva: q, k and v have the same inputs"
        if "eva" in inits and not self.main.train_b:
            yield "main.train_b", "must be true with eva: B starts at zero"

    def _check_strong(self) -> Iterator[Problem]:
        if self.precision != "float64":
            yield "precision", "must be float64 with pivoting=strong"
        # Strong pivoting has a permutation of its own for either end, which depends on how many columns are cut off.
        for end in ("rrqr_major", "rrqr_minor"):
            ranks = {branch.rank for branch in self.branches.values() if branch.init in (end, f"{end}_values")}
            if len(ranks) > 1:
                yield "pivoting", f"strong needs one rank for both branches in the same directions ({end}): {ranks}"

    def method(self) -> Method:
        from recyclelora.adapters.low_rank.inject import LowRank

        return LowRank(self)
