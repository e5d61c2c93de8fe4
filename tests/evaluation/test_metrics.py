from __future__ import annotations

import numpy as np
import pytest

from recyclelora.evaluation.metrics import ConfusionMatrix, as_list, iou, mean_iou


def naive(truth, prediction, k, ignore=255):
    counts = np.zeros((k, k), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != ignore:
            counts[t, p] += 1
    return counts


@pytest.mark.parametrize(("k", "ignore"), [(19, 255), (2, 255), (40, 255), (250, 250), (255, 255), (19, 19)])
def test_counts_are_exact(k, ignore):
    rng = np.random.default_rng(k)
    confusion = ConfusionMatrix(k, ignore)
    expected = np.zeros((k, k), np.int64)
    for _ in range(3):
        truth = rng.integers(0, k, (13, 17)).astype(np.uint8)
        truth[rng.random(truth.shape) < 0.2] = ignore
        prediction = rng.integers(0, k, truth.shape).astype(np.uint8)
        own = confusion.update(truth, prediction)
        np.testing.assert_array_equal(own, naive(truth, prediction, k, ignore))
        expected += own
    np.testing.assert_array_equal(confusion.counts, expected)


def test_iou_by_hand():
    """truth 0 0 1 ignored, prediction 0 1 1 1: class 0 has 1 of 2, class 1 has 1 of 2, class 2 is absent."""
    confusion = ConfusionMatrix(3)
    confusion.update(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    assert as_list(confusion.iou()) == [0.5, 0.5, None]
    assert mean_iou(confusion.iou()) == 0.5


def test_predicted_but_not_in_the_ground_truth_counts_zero():
    confusion = ConfusionMatrix(3)
    confusion.update(np.array([[0, 0]], np.uint8), np.array([[0, 2]], np.uint8))
    assert as_list(confusion.iou()) == [0.5, None, 0.0]
    assert mean_iou(confusion.iou()) == 0.25


def test_no_class_at_all_has_no_mean():
    assert mean_iou(iou(np.zeros((3, 3), np.int64))) is None


@pytest.mark.parametrize(
    ("truth", "prediction"), [([[0, 30]], [[0, 0]]), ([[0, 0]], [[0, 19]]), ([[0]], [[0, 0]]), ([[0, 0]], [[0, 255]])]
)
def test_ids_outside_the_classes_are_refused(truth, prediction):
    with pytest.raises(ValueError, match=r"ids outside 0\.\.18|shapes"):
        ConfusionMatrix(19).update(np.array(truth, np.uint8), np.array(prediction, np.uint8))


def test_counts_stay_exact_beyond_what_float32_holds():
    """cv2's histograms are float32, which has no odd numbers above 2^24."""
    truth = np.zeros((1 << 12, (1 << 12) + 1), np.uint8)
    assert ConfusionMatrix(2).update(truth, truth)[0, 0] == truth.size > 1 << 24


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="prediction int64; both must be uint8"):
        ConfusionMatrix(2).update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int64))


def test_rows_may_lie_apart():
    truth = np.random.default_rng(0).integers(0, 3, (8, 8)).astype(np.uint8)
    np.testing.assert_array_equal(
        ConfusionMatrix(3).update(truth[:, ::2], truth[:, ::2]), np.diag(np.bincount(truth[:, ::2].ravel()))
    )


def test_sum_over_processes():
    confusion = ConfusionMatrix(2)
    confusion.update(np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8))
    doubled = confusion.all_reduced(lambda tensor: 2 * tensor)
    np.testing.assert_array_equal(doubled.counts, [[2, 0], [2, 0]])
