"""Anytime-valid decisions, held against integrals computed by scipy and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from recyclelora.sweep.race.anytime import (
    anytime_p,
    confidence_sequence,
    decide,
    holm,
    least_seeds,
    log_e,
    more_needed,
)

PRIOR = stats.norm(0, 2)
"""Of effects in standard deviations; another one would be another test, and decide other races."""


def bayes_factor(values: np.ndarray) -> float:
    """Of a normal effect size against none: noncentral t over central t, mixed numerically."""
    n = len(values)
    t = values.mean() / (values.std(ddof=1) / math.sqrt(n))

    def likelihood(delta: float) -> float:
        return float(stats.nct.pdf(t, n - 1, math.sqrt(n) * delta) * PRIOR.pdf(delta))

    mixed, _ = integrate.quad(likelihood, -12, 12, limit=400, points=[values.mean() / values.std(ddof=1)])
    return mixed / float(stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("effect", [0.0, 0.7, 2.0])
def test_the_e_process_is_the_mixed_ratio_of_t_densities(effect: float):
    values = np.random.default_rng(3).normal(effect, 1.0, 7)
    for n in (2, 3, 7):
        assert math.exp(log_e(values)[n - 1]) == pytest.approx(bayes_factor(values[:n]), rel=1e-4)


def test_one_difference_says_nothing_and_the_scale_does_not_matter():
    values = np.array([0.4, 0.1, 0.5, 0.3])
    assert log_e(values)[0] == pytest.approx(0.0)
    np.testing.assert_allclose(log_e(values), log_e(-300 * values))
    assert anytime_p([0.4]) is None
    assert anytime_p([0.4, 0.4, 0.4]) is None  # no spread: nothing is known of how far others would be
    assert anytime_p([3e5, 1e6 * (0.1 + 0.2)]) is None  # nor where only rounding differs
    assert anytime_p([0.0, 0.0]) == 1.0
    assert not log_e(np.zeros(3)).any()


def test_stopping_whenever_it_says_so_is_wrong_in_less_than_one_case_of_twenty():
    rng = np.random.default_rng(0)
    for draws in (rng.standard_normal((4000, 40)), rng.standard_t(3, (4000, 40)), rng.laplace(size=(4000, 40))):
        reached = (log_e(draws) >= math.log(20)).any(1).mean()
        assert reached < 0.05


def test_looking_again_never_takes_a_decision_back():
    first = [1.0, 1.1, 0.9, 1.05, 1.0, 0.95]
    p = anytime_p(first)
    assert p is not None and p < 0.05
    assert anytime_p([*first, -3.0, -3.0]) == p


def test_the_interval_holds_exactly_the_means_that_are_not_refused():
    values = np.random.default_rng(1).normal(0.3, 0.5, 9)
    low, high = confidence_sequence(values, 0.05)
    for end in (low, high):
        assert log_e(values - end)[-1] == pytest.approx(math.log(20), rel=1e-9)
    assert low < values.mean() < high and log_e(values - (low + high) / 2)[-1] < math.log(20)
    assert confidence_sequence(values) == (low, high)  # at 0.05 where nothing else is asked for
    assert confidence_sequence(values[:2]) is None  # two seeds bound nothing at this level
    for end in confidence_sequence(values[:2], 0.5):
        assert log_e(values[:2] - end)[-1] == pytest.approx(math.log(2))
    assert confidence_sequence([0.3]) is None


@pytest.mark.parametrize("values", [[0.8, 1.6, 0.4, 1.2], [0.03, 0.06, 0.01, 0.05], [-7, -2, -9, 1], [20, 90]])
def test_the_estimate_of_seeds_is_where_like_differences_decide(values: list[float]):
    more = more_needed(values, 0.05)
    assert more and more_needed(values * 10, 0.05) == 0
    assert of_like(len(values) + more, values) >= math.log(20) > of_like(len(values) + more - 1, values)


def of_like(n: int, values: list[float]) -> float:
    """The logarithm of the e-process after n differences with the mean and the spread of these."""
    standard = np.resize([1.0, -1.0], n - n % 2)
    standard = np.append(standard, 0.0) if n % 2 else standard
    return float(log_e(np.mean(values) + np.std(values, ddof=1) * standard / standard.std(ddof=1))[-1])


def test_one_more_is_the_nearest_estimate_and_a_thousand_seeds_are_the_farthest():
    assert more_needed([1.0, 1.4, 0.9], 0.05) == 1
    just = optimize.brentq(lambda mean: of_like(1000, [mean + 1, mean - 1]) - math.log(20), 0.05, 0.5)
    assert more_needed([just + 1 + 1e-6, just - 1 + 1e-6], 0.05) == 998
    assert more_needed([just + 1 - 1e-6, just - 1 - 1e-6], 0.05) is None


def test_there_is_no_estimate_where_nothing_can_be_said():
    assert more_needed([0.01, -0.01, 0.012, -0.0099], 0.05) is None
    assert more_needed([1.0], 0.05) is None


def test_a_race_adjusts_for_its_candidates_and_says_what_it_knows():
    rng = np.random.default_rng(2)
    far, behind, near, alone = decide(
        [list(rng.normal(4.0, 0.5, 7)), list(rng.normal(-4.0, 0.5, 7)), [0.5, -0.2, 0.6, 0.1], [2.0]]
    )
    assert [d.verdict for d in (far, behind, near, alone)] == ["better", "worse", "undecided", "undecided"]
    assert str(far) == "better, decided after 7 seeds"
    assert near.more == more_needed([0.5, -0.2, 0.6, 0.1], 0.05 / 2) > 4  # two of the four are undecided
    assert str(near) == f"undecided after 4 seeds, about {near.more} more would decide"
    assert str(alone) == "undecided after 1 seed"
    (single,) = decide([[1.0, 1.2, 0.8, 1.1]])
    among = decide([[1.0, 1.2, 0.8, 1.1], *([0.1, -0.1] for _ in range(17))])[0]
    assert single.p * 18 == pytest.approx(among.p)
    assert single.verdict == "better" and among.verdict == "undecided"
    assert decide([[0.1, 0.12, 0.08, 0.11]])[0].verdict == "better"  # the size of a difference does not matter


def test_who_has_no_p_yet_is_one_of_the_candidates_all_the_same():
    decided = [1.0, 1.01, 0.99, 1.0, 1.0]
    assert decide([decided])[0].verdict == "better"
    first, *others = decide([decided, *([0.3] for _ in range(400))])
    assert first.verdict == "undecided" and all(d.p is None for d in others)


def test_the_fewest_seeds_that_can_decide():
    for alpha in (0.5, 0.05, 0.05 / 17, 0.05 / 153):
        n = least_seeds(alpha)
        nearly_equal = 1 + 1e-9 * np.arange(n)
        assert log_e(nearly_equal)[-1] >= -math.log(alpha) > log_e(nearly_equal)[-2]
    assert least_seeds(0.05) == 4 and least_seeds(0.05 / 17) == 5


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])  # 3 x .01; 2 x .03; max(.06, .04)
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([None]) == [None] and holm([]) == []
