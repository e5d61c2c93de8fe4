"""Four maps at the stride of a patch -> a pyramid of strides 4, 8, 16, 32 (for patches of 16)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.timm_library import LayerNorm2d

FACTORS = (4.0, 2.0, 1.0, 0.5)


class Pyramid(Protocol):
    """How the four levels get their sizes: x4, x2, x1, x1/2."""

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w) -> maps (B, C, 4h, 4w), (B, C, 2h, 2w), (B, C, h, w), (B, C, h/2, w/2)."""

    def project(self, features: Sequence[Tensor], projections: Sequence[nn.Module]) -> list[Tensor]:
        """The pyramid, each level sent through its 1x1 convolution."""


class BilinearPyramid(nn.Module):
    """The published pyramid: each level is resized bilinearly, without antialiasing. No parameters."""

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """See :class:`Pyramid`."""
        return [resize(f, factor) for f, factor in zip(features, FACTORS, strict=True)]

    def project(self, features: Sequence[Tensor], projections: Sequence[nn.Module]) -> list[Tensor]:
        """See :class:`Pyramid`. The convolutions come first: bilinear weights sum to 1 and act on every channel alike,
        so the maps are the same, and stride 4 costs a sixteenth."""
        levels = zip(features, projections, FACTORS, strict=True)
        return [resize(projection(f), factor) for f, projection, factor in levels]


class LearnedPyramid(nn.Module):
    """Deconvolutions instead of interpolation, as plain transformers get them in BEiT and ViTDet.

    x4: deconvolution, norm, GELU, deconvolution; x2: deconvolution; x1: as it is; x1/2: maximum of 2x2.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        c4, c2 = channels[0], channels[1]
        self.times4 = nn.Sequential(_doubled(c4), LayerNorm2d(c4), nn.GELU(), _doubled(c4))
        self.times2 = _doubled(c2)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """See :class:`Pyramid`."""
        f4, f8, f16, f32 = features
        halved = F.max_pool2d(f32, 2) if min(f32.shape[-2:]) > 1 else f32
        return [self.times4(f4), self.times2(f8), f16, halved]

    def project(self, features: Sequence[Tensor], projections: Sequence[nn.Module]) -> list[Tensor]:
        """See :class:`Pyramid`."""
        return [projection(f) for f, projection in zip(self(features), projections, strict=True)]


def build_pyramid(kind: str, channels: Sequence[int]) -> BilinearPyramid | LearnedPyramid:
    """The pyramid for levels with these ``channels``."""
    return LearnedPyramid(channels) if kind == "learned" else BilinearPyramid()


def resize(x: Tensor, factor: float) -> Tensor:
    """A map (B, C, h, w) bilinearly resized; a side of 1 is not halved."""
    if factor == 1 or (factor < 1 and min(x.shape[-2:]) == 1):
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _doubled(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
