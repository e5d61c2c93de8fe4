"""What can be configured: one dataclass for each kind of option, with the checks of its values.

Every option file under ``conf/`` attaches one of these, so that a typo is refused by name while the configuration is
composed.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045

Problem = tuple[str, str]
"""A field's name and what is wrong with its value."""


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem with the nearest allowed name when ``value`` is not one of ``allowed``."""
    if value not in allowed:
        yield name, f"must be one of {', '.join(allowed)}{nearest(value, allowed)}"


def nearest(word: str, names: tuple[str, ...] | list[str]) -> str:
    """A ' (did you mean ...?)' remark for the name closest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def at_least(name: str, value: float, low: float) -> Iterator[Problem]:
    """Yield a problem unless ``value`` is finite and not below ``low``."""
    if not (math.isfinite(value) and value >= low):
        yield name, f"must be a finite number of at least {low:g}"


def above_zero(name: str, value: float) -> Iterator[Problem]:
    """Yield a problem unless ``value`` is finite and positive."""
    if not (math.isfinite(value) and value > 0):
        yield name, "must be a finite number above 0"


# --- backbone ---------------------------------------------------------------------------------------------------------


@dataclass
class BackboneConfig:
    """A vision foundation model as timm knows it, and how it is resampled to the patch size it runs at.

    ``image_size`` (height, width) is what the position embedding is laid out for; null takes the training crop.
    """

    name: str = MISSING
    model: str = MISSING
    hub: Optional[str] = None
    patch_size: int = 16
    image_size: Optional[list[int]] = None
    pretrained: bool = True
    checkpoint: Optional[str] = None
    levels: Optional[list[int]] = None
    resampling: str = "bicubic"
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    model_args: dict[str, Any] = field(default_factory=dict)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from at_least("patch_size", self.patch_size, 1)
        yield from one_of("resampling", self.resampling, ("bicubic", "timm"))
        if self.image_size is not None and (
            len(self.image_size) != 2 or any(s % max(1, self.patch_size) for s in self.image_size)
        ):
            yield "image_size", f"must be [height, width], multiples of the patch size {self.patch_size}"
        if self.levels is not None and len(self.levels) != 4:
            yield "levels", "must name 4 blocks"


# --- adapter ----------------------------------------------------------------------------------------------------------

INITS = ("kaiming", "gaussian", "orthogonal", "svd_major", "svd_minor", "qr", "rrqr_major", "rrqr_minor")
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
    main: BranchConfig = field(default_factory=BranchConfig)
    sub: Optional[BranchConfig] = None

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("alpha", self.alpha)
        yield from one_of("scale_rule", self.scale_rule, SCALE_RULES)
        yield from one_of("precision", self.precision, ("float64", "float32"))
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

# --- decoder ----------------------------------------------------------------------------------------------------------


@dataclass
class LinearDecoderConfig:
    """One linear layer over the normalised features of the four levels."""

    kind: str = "linear"
    name: str = "linear"
    lr_mult: float = 1.0
    dropout: float = 0.0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        if not 0 <= self.dropout < 1:
            yield "dropout", "must lie in [0, 1)"


DecoderConfig = LinearDecoderConfig
DECODERS: dict[str, type] = {"linear": LinearDecoderConfig}

# --- data -------------------------------------------------------------------------------------------------------------


@dataclass
class ClassesConfig:
    """The classes that are told apart: index = train id."""

    names: list[str] = MISSING
    colours: list[list[int]] = MISSING
    ignore_index: int = 255

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if not 2 <= len(self.names) <= 255 or len(set(self.names)) != len(self.names):
            yield "names", "must be 2 to 255 different names"
        if len(self.colours) != len(self.names):
            yield "colours", f"must hold one [r, g, b] for each of the {len(self.names)} names"
        if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in self.colours):
            yield "colours", "must be [r, g, b] with values from 0 to 255"
        if not len(self.names) <= self.ignore_index <= 255:
            yield "ignore_index", f"must lie between {len(self.names)} and 255"


@dataclass
class DatasetConfig:
    """One split of one dataset; ``subset`` draws that many images, seeded by ``data.subset_seed``."""

    dataset: str = MISSING
    split: str = MISSING
    name: Optional[str] = None
    subset: Optional[int] = None
    weight: Optional[float] = None

    @property
    def label(self) -> str:
        """The name it carries in results."""
        return self.name or self.dataset

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if self.subset is not None:
            yield from at_least("subset", self.subset, 1)
        if self.weight is not None:
            yield from above_zero("weight", self.weight)


@dataclass
class AugmentConfig:
    """The published training augmentation, in its order. Sizes in pixels."""

    crop: list[int] = field(default_factory=lambda: [512, 512])
    short_edges: list[int] = field(default_factory=list)
    max_long_edge: int = 2048
    max_class_ratio: float = 0.75
    max_redraws: int = 10
    flip: float = 0.5
    brightness: float = 32.0
    contrast: list[float] = field(default_factory=lambda: [0.5, 1.5])
    saturation: list[float] = field(default_factory=lambda: [0.5, 1.5])
    hue: int = 18
    photometric: float = 0.5

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if len(self.crop) != 2 or min(self.crop) < 1:
            yield "crop", "must be [height, width] in pixels"
        if not self.short_edges or min(self.short_edges) < 1:
            yield "short_edges", "must list at least one positive length in pixels"
        yield from at_least("hue", self.hue, 0)
        yield from at_least("brightness", self.brightness, 0)
        for name in ("contrast", "saturation"):
            if len(getattr(self, name)) != 2 or not 0 <= getattr(self, name)[0] <= getattr(self, name)[1]:
                yield name, "must be [low, high] with 0 <= low <= high"
        for name in ("flip", "photometric", "max_class_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                yield name, "must lie in [0, 1]"


@dataclass
class ProtocolConfig:
    """How images are scored: whole or by sliding window; ``sizes`` resizes a dataset's images to [height, width]."""

    name: str = MISSING
    mode: str = "slide"
    window: int = 512
    stride: int = 341
    sizes: dict[str, list[int]] = field(default_factory=dict)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("mode", self.mode, ("slide", "whole"))
        yield from at_least("window", self.window, 1)
        if not 1 <= self.stride <= self.window:
            yield "stride", f"must lie between 1 and the window, {self.window}"
        for dataset, size in self.sizes.items():
            if len(size) != 2 or min(size) < 1:
                yield f"sizes.{dataset}", "must be [height, width] in pixels"


@dataclass
class DataConfig:
    """Where training images come from and on which unseen streets the model is scored."""

    name: str = MISSING
    root: str = MISSING
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    sources: list[DatasetConfig] = field(default_factory=list)
    source_val: DatasetConfig = field(default_factory=DatasetConfig)
    targets: list[DatasetConfig] = field(default_factory=list)
    subset_seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        if not self.sources:
            yield "sources", "must name at least one dataset"
        if not self.targets:
            yield "targets", "must name at least one dataset"
        labels = [target.label for target in self.targets]
        if len(set(labels)) != len(labels) or "source_val" in labels:
            yield "targets", f"need different names, and none may be source_val: {', '.join(labels)}"


# --- trainer, optimizer, tracking -------------------------------------------------------------------------------------

PRECISIONS = ("32-true", "bf16-mixed", "auto")


ACCELERATORS = ("auto", "cpu", "cuda", "mps")


@dataclass
class TrainerConfig:
    """How long, on what, and how often. Steps are optimizer steps; ``batch_size`` is over all devices together."""

    max_steps: int = 40_000
    batch_size: int = 4
    num_workers: int = 4
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    grad_clip: Optional[float] = None
    log_every: int = 50
    eval_every: int = 4_000
    eval_batch_size: int = 1
    eval_images: Optional[int] = None
    checkpoint_every: Optional[int] = None
    num_figures: int = 3

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        for name in ("max_steps", "batch_size", "devices", "num_nodes", "log_every", "eval_every", "eval_batch_size"):
            yield from at_least(name, getattr(self, name), 1)
        for name in ("eval_images", "checkpoint_every"):
            if getattr(self, name) is not None:
                yield from at_least(name, getattr(self, name), 1)
        yield from at_least("num_workers", self.num_workers, 0)
        yield from at_least("num_figures", self.num_figures, 0)
        yield from one_of("precision", self.precision, PRECISIONS)
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)
        if self.grad_clip is not None:
            yield from above_zero("grad_clip", self.grad_clip)
        if min(self.devices, self.num_nodes) > 0 and self.batch_size % (self.devices * self.num_nodes):
            yield "batch_size", f"must divide evenly over {self.devices * self.num_nodes} processes"


@dataclass
class OptimizerConfig:
    """AdamW, a polynomial learning-rate schedule after a linear warm-up, and cosine annealing of the weight decay."""

    lr: float = 1e-4
    weight_decay: float = 0.05
    weight_decay_end: Optional[float] = 1e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    power: float = 0.9
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr", self.lr)
        yield from above_zero("eps", self.eps)
        yield from at_least("weight_decay", self.weight_decay, 0)
        yield from at_least("warmup_steps", self.warmup_steps, 0)
        yield from at_least("power", self.power, 0)
        if self.weight_decay_end is not None:
            yield from at_least("weight_decay_end", self.weight_decay_end, 0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield "betas", "must be two numbers in [0, 1)"


@dataclass
class TrackingConfig:
    """Whether MLflow mirrors the run; ``uri`` null means MLFLOW_TRACKING_URI, else SQLite in the outputs folder."""

    mlflow: bool = True
    experiment: Optional[str] = None
    uri: Optional[str] = None


# --- the whole --------------------------------------------------------------------------------------------------------


@dataclass
class Config:
    """One training run. ``objective`` is what a sweep maximises: source_val, or target_mean (tuned on targets)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    adapter: Any = MISSING
    decoder: Any = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    seed: int = 0
    objective: str = "source_val"
    init_from: Optional[str] = None
    output_dir: str = "outputs"
    cache: str = MISSING
    study: Optional[str] = None
    fresh: bool = False

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("objective", self.objective, ("source_val", "target_mean"))
        yield from at_least("seed", self.seed, 0)
        for side, crop in zip(("height", "width"), self.data.augment.crop, strict=False):
            if self.backbone.patch_size > 0 and crop % self.backbone.patch_size:
                yield (
                    "data.augment.crop",
                    f"{side} {crop} is not a multiple of the patch size {self.backbone.patch_size}",
                )


@dataclass
class EvaluateConfig:
    """Scoring a finished run again, on its own targets or on those of another ``data`` option."""

    run: str = MISSING
    data: Optional[DataConfig] = None
    checkpoint: str = "last"
    num_workers: int = 2
    accelerator: str = "auto"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)


@dataclass
class PredictConfig:
    """Masks, overlays and confidence for unlabelled images; ``input`` is a folder or a list of images."""

    run: str = MISSING
    input: Any = MISSING
    output: Optional[str] = None
    checkpoint: str = "last"
    accelerator: str = "auto"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)
