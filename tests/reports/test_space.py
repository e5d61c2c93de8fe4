from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json

from recyclelora.reports.records import Trial, read_sweep
from recyclelora.reports.space import Axis, axes, importance, pareto_front, searched

from .sweeps import run_name, write_run


def trial(number: int, value: float, **params) -> Trial:
    return Trial(f"{number:04d}", number, "search", "complete", [value], params, {}, None, None, [])


def test_pareto_front_by_hand():
    values = np.array([[0.5, 10], [0.6, 20], [0.55, 30], [0.6, 20], [0.4, 5], [0.4, 6]])
    assert pareto_front(values, ["maximize", "minimize"]).tolist() == [True, True, False, True, True, False]


def test_axes_of_a_ledger_leave_out_the_seed():
    found = axes(
        [trial(0, 0.1, **{"optimizer.lr": 1e-4, "seed": 0}), trial(1, 0.2, **{"optimizer.lr": 1e-2, "seed": 1})]
    )
    (axis,) = found
    assert (axis.name, axis.numeric, axis.logarithmic) == ("lr", True, True)
    np.testing.assert_allclose(axis.positions(), [0, 1])


def test_an_axis_is_logarithmic_where_the_search_space_is():
    space = {"lr": FloatDistribution(1e-5, 1e-2, log=False), "wd": FloatDistribution(0.01, 0.1, log=True)}
    texts = {name: distribution_to_json(one) for name, one in space.items()}
    rows = [trial(n, 0.1, lr=lr, wd=wd) for n, (lr, wd) in enumerate(((1e-5, 0.02), (1e-2, 0.05)))]
    found = {axis.name: axis.logarithmic for axis in axes([replace(row, distributions=texts) for row in rows])}
    assert found == {"lr": False, "wd": True}


def test_axes_of_an_old_sweep_come_from_its_configurations(tmp_path):
    for number, rank in enumerate((8, 16, 16)):
        write_run(tmp_path / "s" / run_name(number), number, changes={"adapter.main.rank": rank})
    (axis,) = axes(searched(read_sweep(tmp_path / "s")))
    assert (axis.name, axis.values) == ("main.rank", [8, 16, 16])


def test_positions_of_choices_and_of_what_is_missing():
    axis = Axis("init", "init", ["qr", "svd", None, "qr"])
    np.testing.assert_allclose(axis.positions(), [0, 1, np.nan, 0])


def test_importance_by_ranks_when_there_are_few_trials():
    rows = [(1, "a", 0.1), (2, "b", 0.2), (3, "a", 0.3), (4, "b", 0.4)]
    trials = [trial(n, value, lr=lr, init=init) for n, (lr, init, value) in enumerate(rows)]
    method, found = importance(trials, axes(trials))
    assert method == "correlation of ranks" and found["lr"] == pytest.approx(1.0)
    # ranks 1, 3 for a and 2, 4 for b: between 2 * 0.25 + 2 * 0.25 of 5
    assert found["init"] == pytest.approx(np.sqrt(1 / 5))
    assert importance(trials[:3], axes(trials[:3])) == ("", {})


def test_fanova_finds_the_parameter_that_matters():
    from optuna import distributions as d

    space = {"lr": d.FloatDistribution(0, 1), "rank": d.IntDistribution(1, 8)}
    texts = {name: d.distribution_to_json(one) for name, one in space.items()}
    rng = np.random.default_rng(0)
    trials = []
    for number in range(30):
        params = {"lr": float(rng.random()), "rank": int(rng.integers(1, 9))}
        trials.append(
            Trial(f"{number:04d}", number, "search", "complete", [params["lr"] ** 2], params, texts, None, None, [])
        )
    method, found = importance(trials, axes(trials))
    assert method == "fANOVA" and found["lr"] > 0.9 > 0.1 > found["rank"] and sum(found.values()) == pytest.approx(1)
