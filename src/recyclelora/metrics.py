"""The exact streaming confusion matrix and the figures drawn from it."""

from __future__ import annotations

import numpy as np
import torch


class ConfusionMatrix:
    """Counts of (ground truth, prediction) pairs over all pixels of a dataset; ``ignore_index`` does not count.

    The 16-bit key ``truth * K + prediction`` sends ignored pixels into bins past K * K, so that no mask is formed.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if not 1 < num_classes <= ignore_index <= 255:
            raise ValueError(f"num_classes={num_classes} and ignore_index={ignore_index} do not fit 8-bit masks")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.key_type = np.dtype(np.int16 if 256 * num_classes <= np.iinfo(np.int16).max else np.int32)
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Add one image: uint8 train ids (H, W) and predicted ids (H, W).

        Returns:
            the image's own matrix (num_classes, num_classes).

        Raises:
            ValueError: shapes differ, or an id is neither a class nor ``ignore_index``.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} have different shapes")
        k = self.num_classes
        key = np.multiply(truth, k, dtype=self.key_type) + prediction
        bins = np.bincount(key.ravel(), minlength=256 * k)
        valid = bins[: k * k].reshape(k, k)
        ignored = bins[self.ignore_index * k : (self.ignore_index + 1) * k].sum()
        if valid.sum() + ignored != truth.size or int(prediction.max(initial=0)) >= k:
            raise ValueError(f"ids outside 0..{k - 1} that are not {self.ignore_index}")
        self.counts += valid
        return valid

    def iou(self) -> np.ndarray:
        """Intersection over union of every class, (num_classes,); NaN where the class occurs nowhere."""
        return iou(self.counts)

    def all_reduced(self, reduce: object) -> ConfusionMatrix:
        """The sum over all processes; ``reduce`` sums a tensor over them."""
        total = ConfusionMatrix(self.num_classes, self.ignore_index)
        total.counts = reduce(torch.from_numpy(self.counts)).cpu().numpy()  # type: ignore[operator]
        return total


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
