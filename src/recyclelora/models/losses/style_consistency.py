"""Consistency of features under a change of style: what stays of an image when colours and contrast are others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.models.losses.config import StyleConsistencyConfig
from recyclelora.models.losses.loss import LossInputs


@dataclass(frozen=True)
class StyleConsistency:
    """1 - cos of a token and the same token of the restyled image, mean over tokens and levels.

    The tokens of the image as it is are no gradient's way. A style is mean and standard deviation of each channel, as
    in AdaIN (Huang and Belongie, 2017).
    """

    options: StyleConsistencyConfig

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """``loss_style_consistency``; costs a forward and backward of the backbone once more."""
        restyled = inputs.encoded(self.restyle(inputs.images))
        distances = [
            1 - F.cosine_similarity(other.float(), own.detach().float(), dim=1).mean()
            for own, other in zip(inputs.features, restyled, strict=True)
        ]
        return {"loss_style_consistency": self.options.weight * torch.stack(distances).mean()}

    def restyle(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), each channel with another mean and standard deviation, drawn anew."""
        mean = images.mean((2, 3), keepdim=True)
        std = images.std((2, 3), keepdim=True)
        shift, stretch = (self.options.strength * torch.randn_like(mean) for _ in range(2))
        return (images - mean) * stretch.exp() + mean + shift * std
