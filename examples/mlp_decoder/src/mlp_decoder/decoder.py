"""Two layers on every patch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.decoders.decoder import DenseDecoder


class MlpDecoder(DenseDecoder):
    """Cross-entropy, weight decay and probabilities come from `DenseDecoder`, whose last layer is ``classifier``."""

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(channels, width, kernel_size=1)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int], query: Tensor | None = None) -> Tensor:
        """Features (B, C, h, w) of the four levels -> logits (B, num_classes, H, W) for ``size`` (H, W)."""
        logits = self.classifier(F.gelu(self.hidden(features[-1])))
        return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
