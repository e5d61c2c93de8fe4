"""Options of the group ``decoder``: each dataclass has its defaults, says what is wrong and builds its decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from recyclelora.models.decoders.loss_options import MaskLossConfig, PixelLossConfig
from recyclelora.system.checks import Problem, above_zero, added, at_least, checked, one_of, within
from recyclelora.system.extras import require

if TYPE_CHECKING:  # at run time nothing here imports torch
    from torch import Tensor, nn

    from recyclelora.models.decoders.decoder import Inner

PYRAMIDS = ("bilinear", "learned")
GROUPS = 32
"""Widths that a group norm follows are multiples of this."""


def _grouped(name: str, value: int) -> Iterator[Problem]:
    if value < 1 or value % GROUPS:
        yield name, f"must be a multiple of {GROUPS}, the groups of the norms"


@dataclass
class LinearDecoderConfig:
    """One linear layer over the normalised features of the four levels."""

    kind: str = "linear"
    name: str = "linear"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    dropout: float = checked(0.0, within, "[0, 1)")
    """of whole channels in front of the classifier"""
    loss: PixelLossConfig = added(PixelLossConfig)
    """of every pixel"""

    def build(self, channels: Sequence[int], num_classes: int) -> nn.Module:
        from recyclelora.models.decoders.linear import LinearDecoder

        return LinearDecoder(channels, num_classes, self)


@dataclass
class SegformerDecoderConfig:
    """SegFormer's: a linear layer for each level, and one that fuses them."""

    needs: ClassVar[str] = "segmentation_models_pytorch"
    kind: str = "segformer"
    name: str = "segformer"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    width: int = checked(256, _grouped)
    """channels of every level's linear layer"""
    loss: PixelLossConfig = added(PixelLossConfig)
    """of every pixel"""

    def build(self, channels: Sequence[int], num_classes: int) -> nn.Module:
        from recyclelora.models.decoders.convolutional import Segformer

        return Segformer(channels, num_classes, self)


@dataclass
class FpnDecoderConfig:
    """Panoptic FPN's: top-down sums, each level brought to stride 4 and added."""

    needs: ClassVar[str] = "segmentation_models_pytorch"
    kind: str = "fpn"
    name: str = "fpn"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    width: int = checked(256, at_least, 1)
    """channels of the top-down sums"""
    head_width: int = checked(128, _grouped)
    """channels of the levels at stride 4"""
    dropout: float = checked(0.2, within, "[0, 1)")
    """of whole channels in front of the classifier"""
    pyramid: str = checked("bilinear", one_of, PYRAMIDS)
    """how the four levels get their sizes: resized bilinearly as published, or by learned deconvolutions"""
    loss: PixelLossConfig = added(PixelLossConfig)
    """of every pixel"""

    def build(self, channels: Sequence[int], num_classes: int) -> nn.Module:
        from recyclelora.models.decoders.convolutional import FeaturePyramid

        return FeaturePyramid(channels, num_classes, self)


@dataclass
class UpernetDecoderConfig:
    """UPerNet's: pooling at four scales, then top-down sums."""

    needs: ClassVar[str] = "segmentation_models_pytorch"
    kind: str = "upernet"
    name: str = "upernet"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    width: int = checked(256, _grouped)
    """channels of everything between the features and the classifier"""
    pyramid: str = checked("bilinear", one_of, PYRAMIDS)
    """how the four levels get their sizes: resized bilinearly as published, or by learned deconvolutions"""
    loss: PixelLossConfig = added(PixelLossConfig)
    """of every pixel"""

    def build(self, channels: Sequence[int], num_classes: int) -> nn.Module:
        from recyclelora.models.decoders.convolutional import UperNet

        return UperNet(channels, num_classes, self)


@dataclass
class DptDecoderConfig:
    """DPT's: levels reassembled by its own deconvolutions, fused by residual units."""

    needs: ClassVar[str] = "segmentation_models_pytorch"
    kind: str = "dpt"
    name: str = "dpt"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    width: int = checked(256, _grouped)
    """channels of the fusion; the levels are reassembled to 1, 2, 4 and 4 times as many"""
    loss: PixelLossConfig = added(PixelLossConfig)
    """of every pixel"""

    def build(self, channels: Sequence[int], num_classes: int) -> nn.Module:
        from recyclelora.models.decoders.convolutional import Dpt

        return Dpt(channels, num_classes, self)


@dataclass
class Mask2FormerDecoderConfig:
    """Mask2Former; the defaults are RecycleLoRA's recipe."""

    has_queries: ClassVar[bool] = True
    """whether an adapter can lend it queries"""
    needs: ClassVar[str] = "transformers"
    kind: str = "mask2former"
    name: str = "mask2former"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    width: int = checked(256, _grouped)
    """of everything between the features and the masks"""
    num_queries: int = checked(100, at_least, 1)
    """not below the number of classes"""
    num_heads: int = checked(8, at_least, 1)
    """of every attention"""
    encoder_layers: int = checked(6, at_least, 1)
    """deformable layers of the pixel decoder"""
    encoder_width: int = checked(1024, at_least, 1)
    """hidden width of their feed-forward networks"""
    decoder_layers: int = checked(9, at_least, 1)
    """layers of the transformer decoder; one output more than these is supervised"""
    decoder_width: int = checked(2048, at_least, 1)
    """hidden width of their feed-forward networks"""
    pyramid: str = checked("bilinear", one_of, PYRAMIDS)
    """how the four levels get their sizes: resized bilinearly as published, or by learned deconvolutions"""
    decay_query_feat: bool = added(True)
    """whether the table of the queries' first features decays, as in RecycleLoRA's configuration; in SoMA's it does
    not, as the queries' position embeddings do not"""
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)
    """of queries and their masks"""

    def check(self) -> Iterator[Problem]:
        yield from _headed(self.width, self.num_heads)

    def build(
        self,
        channels: Sequence[int],
        num_classes: int,
        query: Tensor | None = None,
        query_features: bool = False,
    ) -> nn.Module:
        from recyclelora.models.decoders.mask2former import Mask2Former

        lent, own = None if query is None else tuple(query.shape), (self.num_queries, self.width)
        if lent not in (None, own):
            raise ValueError(f"the adapter lends {lent[0]} queries of width {lent[1]}; the decoder has {own}")
        return Mask2Former(channels, num_classes, self, own_queries=lent is None, own_features=not query_features)


@dataclass
class EomtDecoderConfig:
    """Queries among the patch tokens: in the backbone's last blocks (EoMT), or in new ones behind it."""

    kind: str = "eomt"
    name: str = "eomt"
    lr_mult: float = checked(1.0, above_zero)
    """learning rate relative to the optimizer's"""
    width: int = checked(384, at_least, 1)
    """of queries and blocks behind the backbone"""
    num_queries: int = checked(100, at_least, 1)
    """not below the number of classes"""
    num_heads: int = checked(6, at_least, 1)
    """of blocks behind the backbone"""
    num_blocks: int = checked(4, at_least, 1)
    """how many blocks the queries go through"""
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)
    """of queries and their masks"""
    inside: bool = added(False)
    """whether these are the backbone's last, as published, with its width and heads; else new ones behind it"""
    anneal_start: float = added(1 / 6)
    """share of the steps after which the first block begins to let queries look outside their masks"""
    anneal_end: float = added(5 / 6)
    """share of the steps after which the last block has done so; a block takes a quarter of the time between"""
    anneal_power: float = added(0.9, above_zero)
    """of the polynomial by which the share of masked queries falls"""

    def check(self) -> Iterator[Problem]:
        yield from _headed(self.width, self.num_heads)
        if not 0 <= self.anneal_start <= self.anneal_end <= 1:
            yield "anneal_start", f"must lie between 0 and anneal_end={self.anneal_end:g}, which is at most 1"
        for name in ("width", "num_heads") if self.inside else ("anneal_start", "anneal_end", "anneal_power"):
            if getattr(self, name) != getattr(EomtDecoderConfig, name):
                why = "the blocks are the backbone's" if self.inside else "nothing is masked"
                yield name, f"has no effect, {why} with inside={str(self.inside).lower()}: leave it out"

    def build(self, channels: Sequence[int], num_classes: int, inner: Inner | None = None) -> nn.Module:
        from recyclelora.models.decoders.eomt import Eomt, QueryTokens

        if not self.inside:
            return QueryTokens(channels, num_classes, self)
        if inner is None:
            raise ValueError("decoder.inside=true: is built with the backbone whose last blocks it runs")
        return Eomt(inner, num_classes, self)


def _headed(width: int, num_heads: int) -> Iterator[Problem]:
    if num_heads >= 1 and width % num_heads:
        yield "num_heads", f"must divide the width {width}"


DECODERS: dict[str, type] = {
    "linear": LinearDecoderConfig,
    "segformer": SegformerDecoderConfig,
    "fpn": FpnDecoderConfig,
    "upernet": UpernetDecoderConfig,
    "dpt": DptDecoderConfig,
    "mask2former": Mask2FormerDecoderConfig,
    "eomt": EomtDecoderConfig,
}
"""What a decoder's ``kind`` names. Other packages add theirs by entry points of the group ``recyclelora.decoders``."""


def check_installed(options: object) -> None:
    """Refuse a decoder whose package is missing.

    Raises:
        UserError: it is; says which of the project's extras brings it.
    """
    if (package := getattr(options, "needs", None)) is not None:
        require(f"decoder={getattr(options, 'kind', '')}", "decoders", package)
