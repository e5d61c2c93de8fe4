"""Options of the group ``adapter``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional, Protocol, runtime_checkable

from omegaconf import MISSING

from recyclelora.adapters.blocks import block_ranges
from recyclelora.system.checks import Problem, above_zero, added, at_least, one_of

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.adapters.method import Method

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
    """The low-rank family: LoRA, PiSSA, MiLoRA, SoMA, OLoRA, RecycleLoRA and every ablation of them.

    ``mixed_precision`` concerns ``residual`` under autocast: ``subtract`` takes s B0 A0 away in every forward, so that
    small steps survive; ``fold`` once from the frozen weight, as in float32.
    """

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
    mixed_precision: str = added("fold")

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("alpha", self.alpha)
        yield from one_of("scale_rule", self.scale_rule, SCALE_RULES)
        yield from one_of("precision", self.precision, ("float64", "float32"))
        yield from one_of("pivoting", self.pivoting, ("greedy", "strong"))
        yield from one_of("mixed_precision", self.mixed_precision, ("fold", "subtract"))
        yield from at_least("pivoting_f", self.pivoting_f, 1)
        if self.pivoting == "strong":
            yield from self._check_strong()
        if self.scale is not None:
            yield from above_zero("scale", self.scale)
        if (self.scale is None) == (self.scale_rule == "fixed"):
            yield "scale", "is needed with scale_rule=fixed, and only there"
        yield from _selection(self.targets, self.blocks)

    def _check_strong(self) -> Iterator[Problem]:
        if self.precision != "float64":
            yield "precision", "must be float64 with pivoting=strong"
        # Strong pivoting has a permutation of its own for either end, which depends on how many columns are cut off.
        for end in ("rrqr_major", "rrqr_minor"):
            branches = [branch for branch in (self.main, self.sub) if branch is not None]
            ranks = {branch.rank for branch in branches if branch.init in (end, f"{end}_values")}
            if len(ranks) > 1:
                yield "pivoting", f"strong needs one rank for both branches in the same directions ({end}): {ranks}"


@dataclass
class LayersConfig:
    """Which linear layers a method adapts, and how what it adds learns."""

    targets: list[str] = field(default_factory=lambda: ["*"])
    blocks: str = ":"
    lr_mult: float = 1.0
    weight_decay: float = 0.0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from _selection(self.targets, self.blocks)
        yield from above_zero("lr_mult", self.lr_mult)
        yield from at_least("weight_decay", self.weight_decay, 0)


@dataclass
class DoraConfig(LayersConfig):
    """DoRA: magnitude and direction of every weight row apart; s = alpha / rank."""

    kind: str = "dora"
    name: str = "dora"
    rank: int = 16
    alpha: float = 16.0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from super().check()
        yield from at_least("rank", self.rank, 1)
        yield from above_zero("alpha", self.alpha)


@dataclass
class VeraConfig(LayersConfig):
    """VeRA: two small vectors a layer around a random pair that ``projection_seed`` brings back bit for bit."""

    kind: str = "vera"
    name: str = "vera"
    rank: int = 256
    d_initial: float = 0.1
    projection_seed: int = 0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from super().check()
        yield from at_least("rank", self.rank, 1)
        yield from above_zero("d_initial", self.d_initial)
        yield from at_least("projection_seed", self.projection_seed, 0)


@dataclass
class AdaLoraConfig(LayersConfig):
    """AdaLoRA: a budget of ranks over all layers. Null steps: a tenth, a half and a 400th of ``trainer.max_steps``."""

    kind: str = "adalora"
    name: str = "adalora"
    init_rank: int = 24
    target_rank: int = 16
    alpha: float = 24.0
    t_init: Optional[int] = None
    t_final: Optional[int] = None
    delta_t: Optional[int] = None
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.5

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from super().check()
        yield from at_least("init_rank", self.init_rank, 1)
        if not 1 <= self.target_rank <= self.init_rank:
            yield "target_rank", f"must lie between 1 and init_rank, {self.init_rank}"
        yield from above_zero("alpha", self.alpha)
        yield from at_least("orthogonality", self.orthogonality, 0)
        for name, low in (("t_init", 0), ("t_final", 0), ("delta_t", 1)):
            if getattr(self, name) is not None:
                yield from at_least(name, getattr(self, name), low)
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                yield name, "must lie between 0 and 1"


@dataclass
class ReinConfig:
    """Rein: tokens that refine the features between blocks; ``link`` null lends them to a decoder with queries.

    ``link_features`` null also makes the first features of lent queries from them, as published; false, as in runs of
    the first release, leaves the decoder a table of its own.
    """

    kind: str = "rein"
    name: str = "rein"
    num_tokens: int = 100
    token_rank: int = 16
    scale: float = 0.001
    link: Optional[bool] = None
    query_width: int = 256
    lr_mult: float = 1.0
    weight_decay: Optional[float] = None
    blocks: str = ":"
    link_features: Optional[bool] = added(False)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from at_least("num_tokens", self.num_tokens, 2)
        yield from at_least("token_rank", self.token_rank, 1)
        yield from above_zero("scale", self.scale)
        yield from at_least("query_width", self.query_width, 1)
        yield from above_zero("lr_mult", self.lr_mult)
        if self.weight_decay is not None:
            yield from at_least("weight_decay", self.weight_decay, 0)
        yield from _selection(["*"], self.blocks)
        if self.link_features and self.link is False:
            yield "link_features", "must be null or false with link=false: there are no lent queries then"


@dataclass
class FrozenConfig:
    """Nothing of the backbone trains."""

    kind: str = "frozen"
    name: str = "frozen"


@dataclass
class FullConfig:
    """Everything of the backbone trains, at a fraction of the decoder's learning rate.

    Norms, biases and LayerScale decay only with ``decay_all``.
    """

    kind: str = "full"
    name: str = "full"
    lr_mult: float = 0.1
    weight_decay: Optional[float] = None
    decay_all: bool = added(False)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        if self.weight_decay is not None:
            yield from at_least("weight_decay", self.weight_decay, 0)


@runtime_checkable
class OwnAdapter(Protocol):
    """The configuration of an adapter from another package: a dataclass named by an entry point of the group
    ``recyclelora.adapters``. It may also have a ``check()`` as those here do."""

    kind: str
    name: str

    def method(self) -> Method:
        """What adapts a backbone as this configuration says."""
        ...


AdapterConfig = (
    LowRankConfig | DoraConfig | VeraConfig | AdaLoraConfig | ReinConfig | FrozenConfig | FullConfig | OwnAdapter
)
ADAPTERS: dict[str, type] = {
    "low_rank": LowRankConfig,
    "dora": DoraConfig,
    "vera": VeraConfig,
    "adalora": AdaLoraConfig,
    "rein": ReinConfig,
    "frozen": FrozenConfig,
    "full": FullConfig,
}


def _selection(targets: list[str], blocks: str) -> Iterator[Problem]:
    if not targets:
        yield "targets", "must hold at least one pattern over module names, such as '*.attn.qkv'"
    try:
        block_ranges(blocks)
    except ValueError as error:
        what = str(error).removeprefix("blocks: ")
        yield "blocks", f"must be a range such as ':', '8:' or '-4:', or a list such as '0,3,5'; {what}"
