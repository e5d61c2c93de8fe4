"""Options of the group ``adapter``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from omegaconf import MISSING

from recyclelora.schemas.checks import Problem, above_zero, at_least, one_of

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


INITS = (
    "kaiming", "gaussian", "orthogonal", "orthonormal",
    "svd_major", "svd_minor", "svd_minor_left", "svd_minor_unloaded",
    "qr", "rrqr_major", "rrqr_minor", "rrqr_major_values", "rrqr_minor_values",
)  # fmt: skip
SCALE_RULES = ("total_rank", "sqrt_rank", "fixed")


@dataclass
class BranchConfig:
    """One low-rank pair (A, B) of an adapted layer: how it starts and how fast it learns."""

    init: str = MISSING
    rank: int = MISSING
    lr_mult: float = 1.0
    lr_mult_b: float = 1.0
    weight_decay: float = 0.0
    train_a: bool = True
    train_b: bool = True

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("init", self.init, INITS)
        yield from at_least("rank", self.rank, 1)
        yield from above_zero("lr_mult", self.lr_mult)
        yield from above_zero("lr_mult_b", self.lr_mult_b)
        yield from at_least("weight_decay", self.weight_decay, 0)
        if not (self.train_a or self.train_b):
            yield "train_a", "and train_b are both false: nothing of this branch would train"


@dataclass
class LowRankConfig:
    """The low-rank family: LoRA, PiSSA, MiLoRA, SoMA, OLoRA, RecycleLoRA and every ablation of them."""

    kind: str = "low_rank"
    name: str = MISSING
    alpha: float = 1.0
    scale_rule: str = "total_rank"
    scale: Optional[float] = None
    residual: bool = True
    split_qkv: bool = False
    train_bias: bool = False
    targets: list[str] = field(default_factory=lambda: ["*"])
    blocks: str = ":"
    precision: str = "float64"
    pivoting: str = "greedy"
    pivoting_f: float = 2.0
    main: BranchConfig = field(default_factory=BranchConfig)
    sub: Optional[BranchConfig] = None

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("alpha", self.alpha)
        yield from one_of("scale_rule", self.scale_rule, SCALE_RULES)
        yield from one_of("precision", self.precision, ("float64", "float32"))
        yield from one_of("pivoting", self.pivoting, ("greedy", "strong"))
        yield from at_least("pivoting_f", self.pivoting_f, 1)
        if self.pivoting == "strong" and self.precision != "float64":
            yield "precision", "must be float64 with pivoting=strong"
        if self.scale is not None:
            yield from above_zero("scale", self.scale)
        if (self.scale is None) == (self.scale_rule == "fixed"):
            yield "scale", "is needed with scale_rule=fixed, and only there"
        if not self.targets:
            yield "targets", "must hold at least one pattern over module names, such as '*.attn.qkv'"
        if not re.fullmatch(r"-?\d*:-?\d*|\d+(,\d+)*", self.blocks):
            yield "blocks", "must be a range such as ':', '8:', '0:8' or a list such as '0,3,5'"


@dataclass
class FrozenConfig:
    """Nothing of the backbone trains."""

    kind: str = "frozen"
    name: str = "frozen"


@dataclass
class FullConfig:
    """Everything of the backbone trains, at a fraction of the decoder's learning rate."""

    kind: str = "full"
    name: str = "full"
    lr_mult: float = 0.1
    weight_decay: Optional[float] = None

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)


AdapterConfig = LowRankConfig | FrozenConfig | FullConfig
ADAPTERS: dict[str, type] = {"low_rank": LowRankConfig, "frozen": FrozenConfig, "full": FullConfig}
