"""The dense decoders of segmentation-models-pytorch over the pyramid of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.segformer.decoder import SegformerDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.decoders.config import (
    DptDecoderConfig,
    FpnDecoderConfig,
    SegformerDecoderConfig,
    UpernetDecoderConfig,
)
from recyclelora.models.decoders.decoder import DenseDecoder
from recyclelora.models.decoders.pyramid import build_pyramid

GROUP = 8
"""Channels to a group. One channel alone would be normalised to nothing where UPerNet pools the whole map."""


class ConvolutionalDecoder(DenseDecoder):
    """A body over four levels and one linear classifier of its cells; a concrete one writes :meth:`cells`.

    The library's batch norms become group norms: batches are too small for the former, and they would make the result
    depend on how a batch is spread over processes.

    Args:
        body: the library's decoder
        width: of what the body returns
        num_classes: C
        dropout: of whole channels in front of the classifier
    """

    def __init__(self, body: nn.Module, width: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = _group_norms(body)
        initialize_decoder(self.body)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def cells(self, features: list[Tensor]) -> Tensor:
        """Four maps (B, C, h, w), sides even -> (B, width, f h, f w), f cells to a patch's side."""
        raise NotImplementedError

    def forward(self, features: Sequence[Tensor], size: tuple[int, int], query: Tensor | None = None) -> Tensor:
        """Features (B, C_i, h, w) of the four levels -> logits (B, num_classes, H, W) for ``size`` (H, W)."""
        height, width = features[0].shape[-2:]
        # the level at half the size must double back to the others
        even = [F.pad(f, (0, width % 2, 0, height % 2), mode="replicate") for f in features]
        logits = self.classifier(self.dropout(self.cells(even))).float()
        scale = logits.shape[-1] // even[0].shape[-1]
        logits = logits[..., : height * scale, : width * scale]
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class Segformer(ConvolutionalDecoder):
    """A linear layer for each level, all resized to stride 4 and fused by another (Xie et al., 2021).

    It resizes behind its linear layers and so needs no pyramid.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, options: SegformerDecoderConfig) -> None:
        # the library counts from the image: 3 channels at stride 1, none at stride 2
        body = SegformerDecoder([3, 0, *channels], segmentation_channels=options.width)
        super().__init__(body, options.width, num_classes)

    def cells(self, features: list[Tensor]) -> Tensor:
        """See :class:`ConvolutionalDecoder`."""
        height, width = features[0].shape[-2:]
        # without channels: the body reads no more than their sizes
        image, half = (features[0].new_empty(1, 0, f * height, f * width) for f in (16, 8))
        cells: Tensor = self.body([image, half, *features])
        return cells


class FeaturePyramid(ConvolutionalDecoder):
    """Top-down sums of the levels, each brought to stride 4 and added (Kirillov et al., 2019)."""

    def __init__(self, channels: Sequence[int], num_classes: int, options: FpnDecoderConfig) -> None:
        widths = {"pyramid_channels": options.width, "segmentation_channels": options.head_width}
        super().__init__(
            FPNDecoder(list(channels), 4, **widths, dropout=0.0), options.head_width, num_classes, options.dropout
        )
        self.pyramid = build_pyramid(options.pyramid, channels)

    def cells(self, features: list[Tensor]) -> Tensor:
        """See :class:`ConvolutionalDecoder`."""
        cells: Tensor = self.body(self.pyramid(features))
        return cells


class UperNet(ConvolutionalDecoder):
    """Pooling at four scales on the coarsest level, top-down sums, all fused (Xiao et al., 2018)."""

    def __init__(self, channels: Sequence[int], num_classes: int, options: UpernetDecoderConfig) -> None:
        body = UPerNetDecoder([3, 0, *channels], decoder_channels=options.width)
        super().__init__(body, options.width, num_classes)
        self.pyramid = build_pyramid(options.pyramid, channels)

    def cells(self, features: list[Tensor]) -> Tensor:
        """See :class:`ConvolutionalDecoder`."""
        levels = self.pyramid(features)
        cells: Tensor = self.body([levels[0], levels[0], *levels])
        return cells


class Dpt(ConvolutionalDecoder):
    """Levels reassembled by its own deconvolutions, fused by residual units up to stride 2 (Ranftl et al., 2021)."""

    def __init__(self, channels: Sequence[int], num_classes: int, options: DptDecoderConfig) -> None:
        width = options.width
        middle = (width, 2 * width, 4 * width, 4 * width)
        body = DPTDecoder(
            list(channels), encoder_has_prefix_tokens=False, readout="ignore", intermediate_channels=middle,
            fusion_channels=width,
        )  # fmt: skip
        super().__init__(body, width, num_classes)

    def cells(self, features: list[Tensor]) -> Tensor:
        """See :class:`ConvolutionalDecoder`."""
        cells: Tensor = self.body(features, [None] * len(features))
        return cells


def _group_norms(module: nn.Module) -> nn.Module:
    """Batch norms replaced by group norms, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(child.num_features // GROUP, child.num_features))
        else:
            _group_norms(child)
    return module
