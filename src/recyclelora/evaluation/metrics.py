"""The exact streaming confusion matrix and the figures drawn from it."""

from __future__ import annotations

import cv2
import numpy as np

EXACT = 1 << 24
"""Pixels that OpenCV counts exactly: its histograms are float32."""


class ConfusionMatrix:
    """Counts of (ground truth, prediction) pairs over all pixels of a dataset; ``ignore_index`` does not count.

    One two-dimensional histogram over all 256 ids of the ground truth: no mask is formed and nothing is widened.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if not 1 < num_classes <= ignore_index <= 255:
            raise ValueError(f"num_classes={num_classes} and ignore_index={ignore_index} do not fit 8-bit masks")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Add one image: train ids (H, W) and predicted ids (H, W), both uint8.

        Returns:
            the image's own matrix (num_classes, num_classes).

        Raises:
            ValueError: shapes or types differ, or an id is neither a class nor ``ignore_index``.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} have different shapes")
        if not truth.dtype == prediction.dtype == np.uint8:
            raise ValueError(f"truth is {truth.dtype} and prediction {prediction.dtype}; both must be uint8")
        k = self.num_classes
        pairs = sum(
            (_joint_histogram(t, p, k) for t, p in zip(_parts(truth), _parts(prediction), strict=True)),
            np.zeros((256, k), np.int64),
        )
        valid: np.ndarray = pairs[:k]
        if valid.sum() + pairs[self.ignore_index].sum() != truth.size:
            raise ValueError(f"ids outside 0..{k - 1} that are not {self.ignore_index}")
        self.counts += valid
        return valid

    def iou(self) -> np.ndarray:
        """Intersection over union of every class, (num_classes,); NaN where the class occurs nowhere."""
        return iou(self.counts)

    def all_reduced(self, reduce: object) -> ConfusionMatrix:
        """The sum over all processes; ``reduce`` sums a tensor over them."""
        import torch  # here, so that reports, which only read scores, start without it

        total = ConfusionMatrix(self.num_classes, self.ignore_index)
        total.counts = reduce(torch.from_numpy(self.counts)).cpu().numpy()  # type: ignore[operator]
        return total


def _parts(ids: np.ndarray) -> list[np.ndarray]:
    """Rows of one column, few enough to be counted exactly."""
    flat = np.ascontiguousarray(ids).reshape(-1, 1)
    return [flat[start : start + EXACT] for start in range(0, len(flat), EXACT)]


def _joint_histogram(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels for each pair of ids, (256, num_classes); pixels with a larger predicted id are left out."""
    ranges = [0, 256, 0, num_classes]
    counts: np.ndarray = cv2.calcHist([truth, prediction], [0, 1], None, [256, num_classes], ranges).astype(np.int64)
    return counts


def iou(counts: np.ndarray) -> np.ndarray:
    """IoU per class of a confusion matrix (K, K); a class whose union is zero is absent: NaN.

    A class that is predicted but not in the ground truth counts 0.
    """
    intersection = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - intersection
    values: np.ndarray = np.divide(intersection, union, out=np.full(len(counts), np.nan), where=union > 0)
    return values


def mean_iou(per_class: np.ndarray) -> float | None:
    """Mean over the present classes; None where there is none."""
    present = per_class[~np.isnan(per_class)]
    return float(present.mean()) if len(present) else None


def as_list(per_class: np.ndarray) -> list[float | None]:
    """IoUs for JSON: absent = None."""
    return [None if np.isnan(value) else float(value) for value in per_class]
