from __future__ import annotations

import math

import numpy as np
import pytest

from recyclelora.reports.statistics import (
    Interval,
    alike,
    image_weights,
    mean_and_sd,
    percentiles,
    pooled_p,
    resampled_mean,
    resampled_miou,
    t_interval,
)


def test_t_interval_by_hand():
    found = t_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t of 97.5 % with 2 degrees of freedom, standard error 1 / sqrt(3)
    assert (found.mean, found.count) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert found.p == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(12 + 2))  # closed form for 2 degrees of freedom
    assert found.sign == 0  # -0.48 to 4.48


def test_signs_of_intervals():
    assert t_interval([1.0, 1.1, 0.9]).sign == 1
    assert t_interval([-1.0, -1.1, -0.9]).sign == -1
    assert t_interval([1.0]) == Interval(1.0, 1) and t_interval([1.0]).sign == 0
    assert t_interval([0.0, 0.0]) == Interval(0.0, 2, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.1 + 0.2, 0.3, 0.3], [-1.0, -1.0, -1.0, -1.0]])
def test_identical_differences_have_no_spread_and_no_p(values: list[float]):
    found = t_interval(values)
    assert found.mean == pytest.approx(values[0]) and (found.low, found.high, found.p) == (None, None, None)
    assert found.sign == 0
    assert pooled_p([values[0]], np.array([[1.0] * len(values), [1.0 + values[0]] * len(values)])) == [None]


def test_mean_and_sample_deviation():
    assert mean_and_sd([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_sd([1.0]) == (1.0, None) and mean_and_sd([]) == (None, None)


def test_pooled_p_by_hand():
    scores = np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 4.0]])  # residuals ±0.5, ±0.5, ±1 with 2 degrees of freedom: 1.5
    t = 1 / math.sqrt(1.5)
    assert pooled_p([1.0], scores) == [pytest.approx(1 - t / math.sqrt(2 + t**2))]  # closed form; 0.5
    assert pooled_p([0.0, 1.0], np.array([[1.0, 1.0], [1.0, 1.0]])) == [1.0, None]


def test_pooled_over_two_groups_is_the_paired_test():
    scores = np.array([[0.1, 0.3, 0.2, 0.6], [0.2, 0.5, 0.1, 0.9]])
    paired = t_interval(list(scores[1] - scores[0]))
    assert pooled_p([paired.mean], scores) == [pytest.approx(paired.p)]


def test_outlying_spreads_are_found_and_no_others():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 1)) + 5 * rng.normal(size=(1, 3)) + 0.1 * rng.normal(size=(6, 3))
    assert alike(scores).all()  # groups and seeds may differ as they like
    scores[2, 1] -= 20
    scores[4, 0] -= 10
    np.testing.assert_array_equal(alike(scores), [True, True, False, True, False, True])
    assert alike(scores[:2]).all() and alike(np.ones((4, 2))).all()
    collapsed = np.array([[0.5, 0.51, 0.5], [0.6, 0.612, 0.601], [0.6, 0.02, 0.61]])
    np.testing.assert_array_equal(alike(collapsed), [True, True, False])


@pytest.mark.parametrize(("groups", "seeds"), [(3, 2), (3, 3), (3, 5), (6, 3), (18, 3)])
def test_groups_that_are_alike_lose_one_in_a_hundred_cases(groups: int, seeds: int):
    """Cochran's own table would leave one of three out in 12 % of the cases."""
    rng = np.random.default_rng(7)
    left_out = [not alike(rng.normal(3.0, 2.0, (groups, seeds))).all() for _ in range(1500)]
    assert 0.002 < np.mean(left_out) < 0.02 or (groups, seeds) == (3, 2)
    assert np.mean(left_out) < 0.02


def test_cochrans_c_by_hand():
    """Variances 0, 0 and 1 over two seeds: the share is 1 and F of 2 and 1 degrees of freedom never allows it."""
    assert alike(np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 2.0]])).tolist() == [True, True, False]


def test_whole_drives_are_drawn():
    """Two drives of 1 and 3 frames: a resample holds 2, 4 or 6 frames, each of a drive equally often."""
    weights = image_weights(4, 4000, 0, np.array([7, 3, 3, 3]))
    assert {tuple(row) for row in weights} == {(2, 0, 0, 0), (1, 1, 1, 1), (0, 2, 2, 2)}
    assert np.mean(weights.sum(1) == 4) == pytest.approx(0.5, abs=0.03)


def two_images() -> np.ndarray:
    """Class 0: 3 of 4 pixels right in image 0, 1 of 4 in image 1; class 1 is only in image 1, right."""
    return np.array([[[3, 1], [0, 0]], [[1, 3], [0, 4]]])


def test_resampled_miou_by_hand():
    weights = np.array([[1, 1], [2, 0], [0, 2.0]])
    both = (4 / 8 + 4 / 8) / 2  # class 1: 4 right, union 4 + 4 false
    first = (3 / 4 + 0 / 1) / 2  # class 1 is predicted once where it is not
    second = (1 / 4 + 4 / 7) / 2
    np.testing.assert_allclose(resampled_miou(two_images(), weights), [both, first, second])


def test_a_class_that_no_drawn_image_has_is_absent():
    matrices = np.array([[[4, 0], [0, 0]], [[0, 0], [4, 4]]])
    np.testing.assert_allclose(resampled_miou(matrices, np.array([[2.0, 0.0]])), [1.0])


def test_draws_are_seeded_and_have_as_many_images():
    weights = image_weights(7, 500, seed=3)
    assert weights.shape == (500, 7) and (weights.sum(1) == 7).all() and abs(weights.mean() - 1) < 1e-12
    np.testing.assert_array_equal(weights, image_weights(7, 500, seed=3))
    assert (weights != image_weights(7, 500, seed=4)).any()


def test_percentiles_and_resampled_means():
    assert percentiles(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    means = resampled_mean(np.array([0.0, 1.0]), 4000, seed=0)
    assert set(means) == {0.0, 0.5, 1.0} and (means == 0.5).mean() == pytest.approx(0.5, abs=0.03)


def test_a_class_of_one_pixel_counts_in_a_resample_and_an_absent_one_does_not():
    """IoU 3/4, 0/1 of one pixel that was missed, absent; drawn twice, and not at all."""
    matrix = np.array([[[3.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    assert resampled_miou(matrix, np.array([[1.0], [2.0], [0.0]])).tolist() == [0.375, 0.375, 0.0]
