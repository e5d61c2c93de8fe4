"""The model of a run, not adapted yet, as it is shown the images that its adapter wants to look at first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recyclelora.adapters.calibration.config import CalibrationConfig
from recyclelora.adapters.calibration.measure import ImagePass
from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.config.run import Config
from recyclelora.models.backbones.timm import TimmBackbone
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


def calibration_of(config: Config, *, always: bool = False) -> CalibrationConfig | None:
    """What the run's adapter wants to look at; None, or with ``always`` the defaults, where it starts without data."""
    wanted: CalibrationConfig | None = config.adapter.calibration if getattr(config.adapter, "looks_at", ()) else None
    return wanted or (CalibrationConfig() if always else None)


@contextmanager
def shown_to(
    backbone: TimmBackbone, config: Config, images: ShownImages, cache: FactorCache, build: Callable[[bool], Segmenter]
) -> Iterator[ImagePass]:
    """A pass of the images through ``backbone``, which is on their device meanwhile.

    ``build`` makes a segmenter around the backbone; with True it has the decoder that training will begin with.
    """
    model = _Model(config, images, build)
    seen: list[object] = [images.digest, config.backbone.model, config.backbone.mean, config.backbone.std]
    seen += [config.data.augment.padding, config.decoder, config.losses, config.seed] if images.labelled else []
    digest = hashlib.sha256("\n".join(map(repr, seen)).encode()).hexdigest()
    loss = model.loss if images.labelled else None
    training = backbone.training
    backbone.to(images.device)
    try:
        yield ImagePass(images.count, digest, model.forward, loss, cache, progress=images.progress)
    finally:
        backbone.cpu().train(training)


class _Model:
    """The segmenter around a backbone, in float32 and as in evaluation: nothing is dropped."""

    def __init__(self, config: Config, images: ShownImages, build: Callable[[bool], Segmenter]) -> None:
        self.config, self.images, self.build = config, images, build
        self._built: dict[bool, Segmenter] = {}

    def forward(self, number: int) -> object:
        """The features of one image."""
        segmenter, image, label = self._shown(number, whole=False)
        return segmenter.backbone(segmenter.shown(image, label))

    def loss(self, number: int) -> Tensor:
        """The loss of one image, through the decoder as training begins with it; random draws are the image's own."""
        segmenter, image, label = self._shown(number, whole=True)
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence((self.config.seed, number)).generate_state(1)[0]))
            losses: dict[str, Tensor] = segmenter(image, label, segmenter.counts(label))
        return torch.stack(list(losses.values())).sum()

    def _shown(self, number: int, *, whole: bool) -> tuple[Segmenter, Tensor, Tensor]:
        if whole not in self._built:
            segmenter = self.build(whole).to(self.images.device).eval()
            segmenter.decoder.requires_grad_(False)
            if whole and self.config.trainer.checkpointing:
                segmenter.backbone.model.set_grad_checkpointing(True)  # type: ignore[operator,union-attr]
            self._built[whole] = segmenter
        image, label = (part.to(self.images.device) for part in self.images.load(number))
        return self._built[whole], image, label
