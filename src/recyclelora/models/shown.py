"""A model that is not adapted yet, as it is shown the images that an adapter wants to look at first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recyclelora.models.segmenter import Segmenter


@dataclass(frozen=True)
class ShownImages:
    """Images for a calibration pass, and where the model is shown them."""

    count: int
    digest: str
    """of the images and of how they are cut"""
    load: Callable[[int], tuple[Tensor, Tensor]]
    """number -> uint8 images (1, 3, H, W) and train ids (1, H, W)"""
    labelled: bool = True
    device: str = "cpu"
    progress: Callable[[int, int], None] = lambda count, total: None
    """told of images shown since the last call, and of all that will be"""


@dataclass
class ShownModel:
    """The segmenter around a backbone, in float32 and as in evaluation: nothing is dropped."""

    images: ShownImages
    build: Callable[[bool], Segmenter]
    """makes a segmenter around the backbone; with True it has the decoder that training will begin with"""
    seed: int
    checkpointing: bool
    """holds less of the whole model's activations"""
    _built: dict[bool, Segmenter] = field(default_factory=dict)

    def forward(self, number: int) -> object:
        """The features of one image."""
        segmenter, image, label = self._shown(number, whole=False)
        return segmenter.backbone(segmenter.shown(image, label))

    def loss(self, number: int) -> Tensor:
        """The loss of one image, through the decoder as training begins with it; random draws are the image's own."""
        segmenter, image, label = self._shown(number, whole=True)
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]))
            losses: dict[str, Tensor] = segmenter(image, label, segmenter.counts(label))
        return torch.stack(list(losses.values())).sum()

    def _shown(self, number: int, *, whole: bool) -> tuple[Segmenter, Tensor, Tensor]:
        if whole not in self._built:
            segmenter = self.build(whole).to(self.images.device).eval()
            segmenter.decoder.requires_grad_(False)
            if whole and self.checkpointing:
                segmenter.backbone.model.set_grad_checkpointing(True)  # type: ignore[operator,union-attr]
            self._built[whole] = segmenter
        image, label = (part.to(self.images.device) for part in self.images.load(number))
        return self._built[whole], image, label
