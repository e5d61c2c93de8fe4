"""What ``format=segmenter`` and ``format=onnx`` trace: the merged segmenter as a function of float images."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from recyclelora.exchange.exports.source import Source
from recyclelora.models.segmenter import entering
from recyclelora.system.errors import first_line


class Portable(nn.Module):
    """Float images (B, 3, H, W) with values 0 to 255, sides multiples of the patch size -> float32 scores.

    ``precision`` is that of backbone and decoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, source: Source, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        plain = source.plain if precision == torch.float32 else copy.deepcopy(source.plain)
        self.backbone, self.decoder = plain.backbone.to(precision), plain.decoder.to(precision)
        self.precision = self.decoder_precision = precision
        self.register_buffer("mean", source.plain.mean)
        self.register_buffer("std", source.plain.std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, num_classes, H, W)."""
        normalised = ((images - self.mean) / self.std).to(self.precision)
        features = [level.to(self.decoder_precision) for level in entering(self.decoder, self.backbone, normalised)]
        scores: Tensor = self.decoder(features, (images.shape[-2], images.shape[-1]))
        return scores.float()

    @torch.no_grad()
    def ensure_computable(self, images: Tensor) -> str | None:
        """Keep the decoder in float32 where it cannot compute in ``precision``; says why."""
        try:
            self(images)
        except RuntimeError as error:  # of mixed types, or an operation without a kernel
            if self.decoder_precision == torch.float32:
                raise
            self.decoder.float()
            self.decoder_precision = torch.float32
            return f"the decoder stays in float32: {first_line(error)}"
        return None


class Probabilities(nn.Module):
    """Scores (1, num_classes, H, W) -> probabilities of the classes."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        # A bound method, so that the decoder's weights do not become a part of this module.
        self.probabilities: Callable[[Tensor], Tensor] = decoder.probabilities  # type: ignore[assignment]

    def forward(self, scores: Tensor) -> Tensor:
        """Probabilities (1, num_classes, H, W)."""
        return self.probabilities(scores)
