"""Options of the group ``decoder``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from recyclelora.system.checks import Problem, above_zero, added, at_least, one_of

PYRAMIDS = ("bilinear", "learned")
GROUPS = 32
"""Widths that a group norm follows are multiples of this."""


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
        yield from _share("dropout", self.dropout)


@dataclass
class SegformerDecoderConfig:
    """SegFormer's: a linear layer for each level, and one that fuses them."""

    kind: str = "segformer"
    name: str = "segformer"
    lr_mult: float = 1.0
    width: int = 256

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        yield from _grouped("width", self.width)


@dataclass
class FpnDecoderConfig:
    """Panoptic FPN's: top-down sums, each level brought to stride 4 and added."""

    kind: str = "fpn"
    name: str = "fpn"
    lr_mult: float = 1.0
    width: int = 256
    head_width: int = 128
    dropout: float = 0.2
    pyramid: str = "bilinear"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        yield from at_least("width", self.width, 1)
        yield from _grouped("head_width", self.head_width)
        yield from _share("dropout", self.dropout)
        yield from one_of("pyramid", self.pyramid, PYRAMIDS)


@dataclass
class UpernetDecoderConfig:
    """UPerNet's: pooling at four scales, then top-down sums."""

    kind: str = "upernet"
    name: str = "upernet"
    lr_mult: float = 1.0
    width: int = 256
    pyramid: str = "bilinear"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        yield from _grouped("width", self.width)
        yield from one_of("pyramid", self.pyramid, PYRAMIDS)


@dataclass
class DptDecoderConfig:
    """DPT's: levels reassembled by its own deconvolutions, fused by residual units."""

    kind: str = "dpt"
    name: str = "dpt"
    lr_mult: float = 1.0
    width: int = 256

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        yield from _grouped("width", self.width)


@dataclass
class MaskLossConfig:
    """Mask2Former's loss; the three weights serve its matching too."""

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        for name in ("class_weight", "mask_weight", "dice_weight"):
            yield from at_least(name, getattr(self, name), 0)
        yield from above_zero("no_object_weight", self.no_object_weight)
        yield from at_least("num_points", self.num_points, 1)
        yield from at_least("oversample", self.oversample, 1)
        if not 0 <= self.importance <= 1:
            yield "importance", "must lie in [0, 1]"


@dataclass
class Mask2FormerDecoderConfig:
    """Mask2Former; the defaults are RecycleLoRA's recipe. SoMA's sets ``decay_query_feat`` to false: the queries' first
    features are then free of weight decay, as their position embeddings are."""

    kind: str = "mask2former"
    name: str = "mask2former"
    lr_mult: float = 1.0
    width: int = 256
    num_queries: int = 100
    num_heads: int = 8
    encoder_layers: int = 6
    encoder_width: int = 1024
    decoder_layers: int = 9
    decoder_width: int = 2048
    pyramid: str = "bilinear"
    decay_query_feat: bool = added(True)
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        for name in ("num_queries", "num_heads", "encoder_layers", "encoder_width", "decoder_layers", "decoder_width"):
            yield from at_least(name, getattr(self, name), 1)
        yield from _grouped("width", self.width)
        yield from _headed(self.width, self.num_heads)
        yield from one_of("pyramid", self.pyramid, PYRAMIDS)


@dataclass
class EomtDecoderConfig:
    """Queries among the patch tokens, in the manner of EoMT."""

    kind: str = "eomt"
    name: str = "eomt"
    lr_mult: float = 1.0
    width: int = 384
    num_queries: int = 100
    num_heads: int = 6
    num_blocks: int = 4
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from above_zero("lr_mult", self.lr_mult)
        for name in ("width", "num_queries", "num_heads", "num_blocks"):
            yield from at_least(name, getattr(self, name), 1)
        yield from _headed(self.width, self.num_heads)


def _share(name: str, value: float) -> Iterator[Problem]:
    if not (math.isfinite(value) and 0 <= value < 1):
        yield name, "must lie in [0, 1)"


def _grouped(name: str, value: int) -> Iterator[Problem]:
    if value < 1 or value % GROUPS:
        yield name, f"must be a multiple of {GROUPS}, the groups of the norms"


def _headed(width: int, num_heads: int) -> Iterator[Problem]:
    if num_heads >= 1 and width % num_heads:
        yield "num_heads", f"must divide the width {width}"


DecoderConfig = (
    LinearDecoderConfig
    | SegformerDecoderConfig
    | FpnDecoderConfig
    | UpernetDecoderConfig
    | DptDecoderConfig
    | Mask2FormerDecoderConfig
    | EomtDecoderConfig
)
DECODERS: dict[str, type] = {
    "linear": LinearDecoderConfig,
    "segformer": SegformerDecoderConfig,
    "fpn": FpnDecoderConfig,
    "upernet": UpernetDecoderConfig,
    "dpt": DptDecoderConfig,
    "mask2former": Mask2FormerDecoderConfig,
    "eomt": EomtDecoderConfig,
}
