"""Scoring a segmenter on a dataset under a test protocol."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.data.datasets import Dataset, HalfSize
from recyclelora.data.loaders import eval_loader
from recyclelora.metrics import ConfusionMatrix
from recyclelora.segmenter import Segmenter


@dataclass(frozen=True)
class Protocol:
    """How images are shown to the model; sizes in pixels. The score is taken at the label's own size."""

    name: str
    mode: str = "whole"
    window: int = 512
    stride: int = 341
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """dataset -> (H, W) its images are resized to"""
    fit: dict[str, tuple[int, int]] = field(default_factory=dict)
    """dataset -> (short edge, long edge) within which its images are made as large as their shape allows"""
    half: tuple[str, ...] = ()
    """datasets whose images and labels are halved first"""

    def prepared(self, dataset: Dataset) -> Dataset:
        """The dataset as it is scored: itself, or its half-size copies."""
        return HalfSize(dataset) if dataset.name in self.half else dataset

    def shown_size(self, dataset: str, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) at which an image of ``size`` (H, W) is shown to the model."""
        if dataset in self.fit:
            return fitted(size, self.fit[dataset])
        return self.sizes.get(dataset, size)


@dataclass(frozen=True)
class Evaluator:
    """Scores datasets; ``autocast`` gives the precision's context, ``reduce`` sums over processes."""

    protocol: Protocol
    num_classes: int
    ignore_index: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]
    reduce: Callable[[Tensor], Tensor]
    batch_size: int = 1
    num_workers: int = 0
    rank: int = 0
    world_size: int = 1

    @torch.inference_mode()
    def __call__(
        self, segmenter: Segmenter, dataset: Dataset, advance: Callable[[int], None] = lambda count: None
    ) -> ConfusionMatrix:
        """The confusion matrix of a whole dataset, summed over all processes; ``advance`` is told of images done.

        Without labels there is nothing to score: every class is absent.
        """
        confusion = ConfusionMatrix(self.num_classes, self.ignore_index)
        if not dataset.labelled:
            advance(len(dataset))
            return confusion
        was_training = segmenter.training
        segmenter.eval()
        loader = eval_loader(
            self.protocol.prepared(dataset), batch_size=self.batch_size, num_workers=self.num_workers,
            rank=self.rank, world_size=self.world_size,
        )  # fmt: skip
        for samples in loader:
            for group in by_shape(samples):
                labels = [label for _, label in group]
                for prediction, label in zip(
                    self.predict(segmenter, [image for image, _ in group], dataset.name), labels, strict=True
                ):
                    confusion.update(label, prediction)
            advance(len(samples))
        segmenter.train(was_training)
        return confusion.all_reduced(self.reduce)

    def predict(self, segmenter: Segmenter, images: list[np.ndarray], dataset: str = "") -> list[np.ndarray]:
        """Class ids, uint8 (H, W), of equally large uint8 RGB images (H, W, 3)."""
        ids = self.scores(segmenter, images, dataset).argmax(1).to(torch.uint8)
        return list(ids.cpu().numpy())

    def scores(self, segmenter: Segmenter, images: list[np.ndarray], dataset: str = "") -> Tensor:
        """Logits (B, num_classes, H, W) at the images' own size."""
        size = (images[0].shape[0], images[0].shape[1])
        shown = [_resized(image, self.protocol.shown_size(dataset, size)) for image in images]
        batch = torch.from_numpy(np.stack(shown).transpose(0, 3, 1, 2).copy()).to(self.device)
        with torch.inference_mode(), self.autocast():
            if self.protocol.mode == "slide":
                logits = segmenter.sliding_logits(batch, self.protocol.window, self.protocol.stride)
            else:
                logits = segmenter.logits(batch)
        if tuple(logits.shape[-2:]) != size:
            logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
        return logits


def by_shape(samples: list[tuple[np.ndarray, np.ndarray]]) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Group samples whose images are equally large."""
    groups: dict[tuple[int, ...], list[tuple[np.ndarray, np.ndarray]]] = {}
    for sample in samples:
        groups.setdefault(sample[0].shape, []).append(sample)
    return list(groups.values())


def fitted(size: tuple[int, int], bounds: tuple[int, int]) -> tuple[int, int]:
    """``size`` (H, W) scaled, up or down, until its short or its long edge reaches ``bounds`` (short, long)."""
    scale = min(bounds[0] / min(size), bounds[1] / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if size == image.shape[:2]:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
