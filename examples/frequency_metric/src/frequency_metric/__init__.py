"""Frequency-weighted IoU and pixel accuracy (Long et al., 2015), and the accuracy of the worst images."""

from collections.abc import Sequence

import numpy as np

from recyclelora.evaluation.image_counts import ImageCounts


def frequency(matrix: np.ndarray, images: ImageCounts, classes: Sequence[str]) -> dict[str, float]:
    """``fwiou``, ``accuracy`` and ``accuracy_worst``, the mean over the worst tenth of the images.

    Args:
        matrix: pixels of the set, (K, K): rows are the ground truth, columns the prediction
        images: the same of every single image
        classes: K names by train id
    """
    truth, hits = matrix.sum(1), np.diag(matrix)
    union = truth + matrix.sum(0) - hits
    present = truth > 0
    fwiou = float((truth * hits)[present] @ (1 / union[present])) / truth.sum()
    each = np.sort([_accuracy(image) for image in images.dense() if image.any()])
    worst = each[: max(1, len(each) // 10)]
    return {"fwiou": fwiou, "accuracy": _accuracy(matrix), "accuracy_worst": float(worst.mean())}


def _accuracy(matrix: np.ndarray) -> float:
    return float(np.trace(matrix) / matrix.sum())
