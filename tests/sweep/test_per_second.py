"""Expected improvement per second, against scikit-learn's process, an integral, and a search that it shortens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import integrate, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.ledger import COMPLETE, RUNNING, Trial
from recyclelora.sweep.per_second import Process, _random_points, cheapest_improvement, improvement, vector
from recyclelora.sweep.space import Space

SPACE = Space({"x": FloatDistribution(0.0, 1.0)}, ["x"], {})


def trial(number: int, params: dict, value: float | None, seconds: float) -> Trial:
    found = Trial(Path(f"{number:04d}"), number, params, [], [[]], state=RUNNING if value is None else COMPLETE)
    found.values = None if value is None else [value]
    found.attempts = [Attempt(0, 1, "job", "", seconds=seconds)]
    return found


def test_the_process_is_that_of_scikit_learn():
    chance = np.random.default_rng(0)
    at, there = chance.random((20, 3)), chance.random((7, 3))
    values = np.sin(5 * at[:, 0]) + at[:, 1]
    ours = Process(at, values, 0.4, 1e-2, float(values.mean()), float(values.std()))
    theirs = GaussianProcessRegressor(Matern(0.4, nu=2.5), alpha=1e-2, optimizer=None, normalize_y=True).fit(at, values)
    mean, deviation = theirs.predict(there, return_std=True)
    np.testing.assert_allclose(ours.predict(there)[0], mean, rtol=1e-8)
    np.testing.assert_allclose(ours.predict(there)[1], deviation, rtol=1e-6)
    constant = 10 * math.log(2 * math.pi)
    assert ours.log_likelihood - constant == pytest.approx(theirs.log_marginal_likelihood_value_)
    assert Process.fit(at, values).log_likelihood >= ours.log_likelihood


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.5, 0.2, 0.4), (0.1, 0.2, 0.4), (-1.0, 1.0, 0.4)])
def test_expected_improvement_is_the_mean_of_what_lies_above_the_best(mean: float, deviation: float, best: float):
    expected, _ = integrate.quad(lambda y: (y - best) * stats.norm.pdf(y, mean, deviation), best, mean + 12 * deviation)
    assert improvement(np.array([mean]), np.array([deviation]), best)[0] == pytest.approx(expected)


def test_points_are_numbers_between_0_and_1():
    rate, rank, choice = (
        FloatDistribution(1e-4, 1e-2, log=True),
        IntDistribution(2, 10),
        CategoricalDistribution([1, 2]),
    )
    space = Space({"lr": rate, "rank": rank, "a": choice}, ["lr", "rank", "a"], {}, conditions={"rank": {"a": ["2"]}})
    assert vector(space, {"lr": 1e-3, "rank": 4, "a": 2}) == pytest.approx([0.5, 0.25, 0.0, 1.0])
    assert vector(space, {"lr": 1e-2, "a": 1}) == pytest.approx([1.0, 0.5, 1.0, 0.0])


def test_random_points_lie_evenly_on_each_parameters_own_scale():
    space = Space(
        {"rate": FloatDistribution(1e-4, 1e-2, log=True), "share": FloatDistribution(-2.0, 6.0)}, ["rate", "share"], {}
    )
    points = _random_points(space, seed=1)
    rates, shares = (np.array([point[key] for point in points]) for key in ("rate", "share"))
    assert stats.kstest(np.log10(rates), stats.uniform(-4, 2).cdf).pvalue > 0.01
    assert stats.kstest(shares, stats.uniform(-2, 8).cdf).pvalue > 0.01


def test_of_two_equal_promises_the_cheaper_one_is_tried():
    """The objective is the same at both ends; a trial takes a hundred times as long at the right one."""
    at = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]
    trials = [trial(i, {"x": x}, (x - 0.5) ** 2, 100 ** (x + 0.5)) for i, x in enumerate(at)]
    for seed in range(5):
        chosen = cheapest_improvement(SPACE, trials, maximize=True, seed=seed, enough=5)
        assert chosen is not None and chosen["x"] < 0.3
    upside_down = [trial(t.number, t.params, -(t.value or 0.0), t.attempts[0].seconds) for t in trials]
    assert cheapest_improvement(SPACE, upside_down, maximize=False, seed=4, enough=5) == chosen
    assert cheapest_improvement(SPACE, trials, maximize=True, seed=0, enough=10) is None


def test_what_another_study_found_counts_and_what_it_took_does_not():
    """Best at 0.8 there; before a trial has finished here all points cost the same, then 0.8 is dear."""
    earlier = [({"x": x}, -((x - 0.8) ** 2)) for x in np.linspace(0, 1, 11)]
    first = cheapest_improvement(SPACE, [], maximize=True, seed=0, enough=10, earlier=earlier)
    assert first is not None and abs(first["x"] - 0.8) < 0.1
    assert cheapest_improvement(SPACE, [], maximize=True, seed=0, enough=12, earlier=earlier) is None
    beyond = [({"x": 1.5}, -1.0), *earlier]
    assert cheapest_improvement(SPACE, [], maximize=True, seed=0, enough=12, earlier=beyond) is not None
    here = [trial(i, {"x": x}, -((x - 0.8) ** 2), 10.0 ** (8 * x)) for i, x in enumerate([0.1, 0.5, 0.9])]
    second = cheapest_improvement(SPACE, here, maximize=True, seed=0, enough=10, earlier=earlier)
    assert second is not None and second["x"] < first["x"]


def test_trials_at_a_time_are_not_alike():
    trials = [trial(i, {"x": x}, math.sin(7 * x), 10) for i, x in enumerate([0.0, 0.5, 1.0])]
    first = cheapest_improvement(SPACE, trials, maximize=True, seed=0, enough=3)
    second = cheapest_improvement(SPACE, [*trials, trial(3, first or {}, None, 0)], maximize=True, seed=0, enough=3)
    assert first is not None and second is not None and abs(first["x"] - second["x"]) > 0.05


def test_it_finds_as_much_in_less_time_than_at_random():
    """Seconds until a value within 0.002 of the best one, over six searches; slow trials have nothing more to give."""

    def value(x: float) -> float:
        return -((x - 0.2) ** 2) + 0.02 * math.cos(20 * x)

    best = max(value(x) for x in np.linspace(0, 1, 2001))

    def spent(informed: bool, seed: int) -> float:
        chance, trials = np.random.default_rng(seed), []
        for number in range(60):
            point = (
                cheapest_improvement(SPACE, trials, maximize=True, seed=seed + number, enough=4) if informed else None
            )
            x = float(chance.random()) if point is None else point["x"]
            trials.append(trial(number, {"x": x}, value(x), 1 + 100 * x))
            if value(x) > best - 0.002:
                break
        return sum(t.attempts[0].seconds for t in trials)

    assert sum(spent(True, seed) for seed in range(6)) < 0.6 * sum(spent(False, seed) for seed in range(6))
