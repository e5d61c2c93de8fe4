"""The linear decoder: how far the features alone carry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.decoders.config import LinearDecoderConfig
from recyclelora.models.decoders.decoder import DenseDecoder


class LinearDecoder(DenseDecoder):
    """``logits = W [LN(f_1); LN(f_2); LN(f_3); LN(f_4)] + b`` for every patch, then bilinear to the image.

    LayerNorm per level and patch, since batches are too small for BatchNorm.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, options: LinearDecoderConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = nn.Conv2d(sum(channels), num_classes, kernel_size=1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor], size: tuple[int, int], query: Tensor | None = None) -> Tensor:
        """Features (B, C_i, h, w) of the four levels -> logits (B, num_classes, H, W) for ``size`` (H, W)."""
        tokens = [norm(f.permute(0, 2, 3, 1)) for norm, f in zip(self.norms, features, strict=True)]
        stacked = torch.cat(tokens, dim=-1).permute(0, 3, 1, 2)
        logits = self.classifier(self.dropout(stacked))
        return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
