"""Metrics of single pixels and their probabilities: calibration, boundaries, how well doubt finds errors.

Each sums up numbers of every image, so that sets, processes and evaluations that were stopped can be put together; the
figures follow from the sums alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

if TYPE_CHECKING:  # reports draw from the sums without torch
    from torch import Tensor


@dataclass(frozen=True)
class Pixels:
    """What a model says of one image, and what is true.

    Attributes:
        probabilities: (K, H, W), on the model's device.
        prediction: uint8 train ids (H, W).
        truth: uint8 train ids (H, W); ``ignore_index`` where there is no class.
    """

    probabilities: Tensor
    prediction: np.ndarray
    truth: np.ndarray
    ignore_index: int

    @cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the likeliest class, float32 (H, W)."""
        found: np.ndarray = self.probabilities.float().amax(0).cpu().numpy()
        return found


class PixelMetric(Protocol):
    """What an entry point of the group ``recyclelora.metrics`` names, where matrices of counts are not enough."""

    def size(self, num_classes: int) -> int:
        """Numbers that are kept of an image."""

    def count(self, pixels: Pixels) -> np.ndarray:
        """Of one image, float64 (size,): numbers that may be added to those of other images."""

    def __call__(self, sums: np.ndarray, classes: Sequence[str]) -> Mapping[str, float]:
        """Figures of one set by name, from the sums (images, size) of its images; what is not finite is left out."""


class Calibration:
    """Expected calibration error (Guo et al., ICML 2017): how far confidence is from accuracy, over all pixels.

    Kept are pixels, summed confidence and right pixels of equally wide bins of confidence.
    """

    bins = 15

    def size(self, num_classes: int) -> int:
        """Numbers that are kept of an image."""
        return 3 * self.bins

    def count(self, pixels: Pixels) -> np.ndarray:
        """Of one image, float64 (3 * bins,)."""
        known = pixels.truth != pixels.ignore_index
        sure = pixels.confidence[known].astype(np.float64)
        right = (pixels.prediction == pixels.truth)[known]
        places = np.clip(np.ceil(sure * self.bins).astype(int) - 1, 0, self.bins - 1)
        return np.concatenate([
            np.bincount(places, weights, self.bins) for weights in (np.ones(len(sure)), sure, right.astype(float))
        ])  # fmt: skip

    def __call__(self, sums: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
        """``ece``, between 0 and 1."""
        count, confidence, right = sums.sum(0).reshape(3, self.bins)
        return {"ece": float(np.abs(right - confidence).sum() / count.sum())} if count.sum() else {}


class Boundary:
    """Boundary IoU (Cheng et al., CVPR 2021): IoU of each class within a distance of its own edges.

    The distance is 0.5 % of the image's diagonal, as published for Cityscapes. A pixel is near an edge of its class
    where the square of that radius around it holds anything else, or leaves the image. Pixels without a class are cut
    out of both masks. Kept are, for each class, the pixels that both masks have near an edge, and those of each.
    """

    ratio = 0.005

    def size(self, num_classes: int) -> int:
        """Numbers that are kept of an image."""
        return 3 * num_classes

    def count(self, pixels: Pixels) -> np.ndarray:
        """Of one image, float64 (3 * K,)."""
        truth, classes = pixels.truth, len(pixels.probabilities)
        prediction = np.where(truth == pixels.ignore_index, truth, pixels.prediction)
        radius = max(1, round(self.ratio * math.hypot(*truth.shape)))
        a, b = near_edges(truth, radius), near_edges(prediction, radius)
        parts = (truth[a & b & (truth == prediction)], truth[a], prediction[b])
        return np.concatenate([np.bincount(part, minlength=256)[:classes] for part in parts]).astype(np.float64)

    def __call__(self, sums: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
        """``boundary_iou``, the mean over the classes that occur, between 0 and 1."""
        both, truth, prediction = sums.sum(0).reshape(3, -1)
        union = truth + prediction - both
        there = union > 0
        return {"boundary_iou": float((both[there] / union[there]).mean())} if there.any() else {}


def near_edges(ids: np.ndarray, radius: int) -> np.ndarray:
    """Pixels (H, W) that have another id, or no pixel, within ``radius`` rows and columns."""
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    near: np.ndarray = cv2.erode(ids, square) != cv2.dilate(ids, square)
    near[:radius], near[-radius:], near[:, :radius], near[:, -radius:] = True, True, True, True
    return near


class Uncertainty:
    """How well low confidence finds wrong pixels, and pixels that show none of the classes (BRAVO, Vu et al., 2024).

    Kept are the pixels that are right, wrong and without a class in bins of the confidence's log-odds. Pixels within a
    bin count as equally confident.
    """

    bins = 256
    low, high = -6.0, 17.0  # of float32 probabilities of 2 to 255 classes

    def size(self, num_classes: int) -> int:
        """Numbers that are kept of an image."""
        return 3 * self.bins

    def count(self, pixels: Pixels) -> np.ndarray:
        """Of one image, float64 (3 * bins,)."""
        sure = np.clip(pixels.confidence.astype(np.float64), 1e-12, 1 - 1e-12)
        odds = (np.log(sure / (1 - sure)) - self.low) / (self.high - self.low)
        places = np.clip((odds * self.bins).astype(int), 0, self.bins - 1)
        kind = np.where(pixels.prediction == pixels.truth, 0, 1)
        kind[pixels.truth == pixels.ignore_index] = 2
        return np.bincount((kind * self.bins + places).ravel(), minlength=3 * self.bins).astype(np.float64)

    def __call__(self, sums: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
        """``error_auroc``, ``error_fpr95``, ``unknown_auroc`` and ``unknown_fpr95``, between 0 and 1."""
        right, wrong, unknown = sums.sum(0).reshape(3, self.bins)
        found = {}
        for name, positive, negative in (("error", wrong, right), ("unknown", unknown, right + wrong)):
            if positive.any() and negative.any():
                found[f"{name}_auroc"], found[f"{name}_fpr95"] = detection(positive, negative)
        return found


def detection(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and the false positive rate where 95 % of the positives are found.

    Args:
        positive: how many in each bin (bins,), those of the first bin being found first
        negative: the same of those that should not be found
    """
    hits = np.concatenate([[0], np.cumsum(positive)]) / positive.sum()
    false = np.concatenate([[0], np.cumsum(negative)]) / negative.sum()
    area = float(np.sum(np.diff(false) * (hits[1:] + hits[:-1]) / 2))
    place = int(np.searchsorted(hits, 0.95))
    step = hits[place] - hits[place - 1]
    part = (0.95 - hits[place - 1]) / step
    return area, float(false[place - 1] + part * (false[place] - false[place - 1]))


PIXEL_METRICS: dict[str, PixelMetric] = {
    "boundary": Boundary(), "calibration": Calibration(), "uncertainty": Uncertainty(),
}  # fmt: skip
"""Those that are built in, by the name that ``metrics=[...]`` has for them."""
