"""What a search takes from earlier studies and from a person: warm starts, narrower ranges, priors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from scipy import stats

from recyclelora.sweep.earlier_studies import read_warm_start
from recyclelora.sweep.ledger import COMPLETE, Ledger
from recyclelora.sweep.priors import STRENGTH, read_priors
from recyclelora.sweep.space import Space
from recyclelora.sweep.transfer import narrowed
from recyclelora.system.errors import UserError

RATE = FloatDistribution(1e-5, 1e-1, log=True)
EMPTY = OmegaConf.create({})
UP = ["maximize"]
BEGUN = {"directions": UP, "objectives": [], "n_trials": 3, "command": "", "created": "2026-01-01T00:00:00+0000"}


def space_of(**distributions: BaseDistribution) -> Space:
    return Space(dict(distributions), list(distributions), {})


def study_of(folder: Path, space: Space, *trials: tuple[dict, float], config: dict | None = None) -> str:
    """A sweep's folder with complete trials."""
    ledger = Ledger(folder)
    for number, (params, value) in enumerate(trials):
        distributions = {key: distribution_to_json(space.distributions[key]) for key in params}
        ledger.add(number, params, [], [[]], distributions).end(COMPLETE, values=[value])
    (folder / "study.json").write_text(json.dumps({**BEGUN, "config": config or {}}))
    return str(folder)


# --- warm starts ------------------------------------------------------------------------------------------------------


def test_several_studies_of_other_spaces(tmp_path: Path):
    old = space_of(lr=RATE, seed=CategoricalDistribution([0, 1]))
    first = study_of(
        tmp_path / "a", old, ({"lr": 1e-3, "seed": 0}, 0.5), ({"lr": 1e-5, "seed": 1}, 0.2),
        config={"adapter": {"name": "lora"}, "trainer": {"batch": 16}},
    )  # fmt: skip
    second = study_of(tmp_path / "b", space_of(adapter=CategoricalDistribution(["dora", "lora"])),
                      ({"adapter": "dora"}, 0.4), ({"adapter": "lora"}, 0.3))  # fmt: skip
    here = space_of(
        lr=FloatDistribution(1e-4, 1e-2, log=True), adapter=CategoricalDistribution(["lora", "soma"]),
        **{"trainer.batch": IntDistribution(1, 8)},
    )  # fmt: skip
    now = OmegaConf.create({"lr": 2e-3, "trainer": {"batch": 4}, "adapter": {"name": "soma"}})
    found, remarks = read_warm_start([first, second], here, UP, now)
    assert [trial.params for trial in found] == [
        {"lr": 1e-3, "adapter": "lora", "trainer.batch": 16},
        {"lr": 1e-5, "adapter": "lora", "trainer.batch": 16},
        {"lr": 2e-3, "adapter": "lora", "trainer.batch": 4},
    ]
    assert [trial.value for trial in found] == [0.5, 0.2, 0.3]
    a, b = f"hydra.sweeper.warm_start={first}", f"hydra.sweeper.warm_start={second}"
    assert remarks == [
        f"{a}: adapter=lora, trainer.batch=16 there, though not varied",
        f"{a}: seed is not varied here, whatever it was there",
        f"{a}: 2 trials lie outside of the ranges here, and are known where they lie",
        f"{b}: 1 of 2 trials do not fit into this space and are left out",
        f"{b}: lr=0.002, trainer.batch=4 there, though not varied",
    ]  # fmt: skip
    study = optuna.create_study(directions=UP, sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=1))
    for trial in found:
        study.add_trial(trial)  # Optuna takes them beside the ranges of this sweep
    assert here.suggest(study.ask()).keys() == here.distributions.keys()


def test_a_value_that_nobody_knows_is_not_made_up(tmp_path: Path):
    first = study_of(tmp_path, space_of(lr=RATE), ({"lr": 1e-3}, 0.5))
    with pytest.raises(UserError, match="none of its 1 trials fits into this space: lr, rank"):
        read_warm_start(first, space_of(lr=RATE, rank=IntDistribution(1, 8)), UP, EMPTY)


# --- narrower ranges --------------------------------------------------------------------------------------------------


def test_ranges_hold_the_best_of_every_study_and_a_margin(tmp_path: Path):
    rank, share = IntDistribution(1, 64), FloatDistribution(0.0, 1.0, step=0.25)
    space = space_of(lr=RATE, rank=rank, share=share, kind=CategoricalDistribution(["a", "b"]), other=RATE)
    bad = [({"lr": 1e-5 * (i + 1), "rank": 64, "share": 1.0}, 0.1 - 0.001 * i) for i in range(17)]
    good = [
        ({"lr": lr, "rank": rank, "share": 0.5}, 0.9) for lr, rank in ((1e-3, 8), (2e-3, 12), (4e-3, 16), (3e-3, 9))
    ]
    first = study_of(tmp_path / "a", space, *bad, *good[:3])  # the best fifth of twenty are four: one of the bad ones
    few = study_of(tmp_path / "b", space, *good[1:])  # the best three of three
    here, ranges, remarks = narrowed(few, space, [], UP, tmp_path / "s")
    low, high = (math.log10(end) for end in ranges["lr"])
    assert (low, high) == pytest.approx((math.log10(2e-3) - 0.4, math.log10(4e-3) + 0.4))  # a tenth of four decades
    assert ranges["rank"] == [2, 23]  # 9 - 6.3 and 16 + 6.3, outwards
    assert ranges["share"] == [0.25, 0.75]  # outwards to whole steps
    assert here.distributions["kind"] == space.distributions["kind"] and here.distributions["other"] == RATE
    assert here.distributions["rank"] == IntDistribution(2, 23) and len(remarks) == 3
    _, both, _ = narrowed([few, first], space, [{"lr": 5e-2}], UP, tmp_path / "s")
    assert both["rank"] == [1, 64] and both["lr"][1] == 0.1  # the bad one; a point that is tried in any case


def test_a_sweep_keeps_the_ranges_that_it_began_with(tmp_path: Path):
    space = space_of(lr=RATE)
    first = study_of(tmp_path / "a", space, ({"lr": 1e-3}, 0.5))
    ranges = {"lr": [1e-4, 1e-2], "rank": [2, 23]}
    (tmp_path / "study.json").write_text(json.dumps(BEGUN | {"transfer": {"ranges": ranges}}))
    narrowed(first, space, [], UP, tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(BEGUN | {"transfer": {"ranges": {"lr": [1e-4, 1e-2]}}}))
    here, ranges, _ = narrowed(first, space, [], UP, tmp_path)
    assert ranges == {"lr": [1e-4, 1e-2]} and here.distributions["lr"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert narrowed(None, space, [], UP, tmp_path) == (space, {}, [])
    (tmp_path / "study.json").write_text("null")
    with pytest.raises(UserError, match=r"study\.json"):
        narrowed(first, space, [], UP, tmp_path)


@pytest.mark.parametrize(
    ("directions", "words"),
    [(["minimize"], "it was to maximize, this sweep is to minimize"), (["maximize", "minimize"], "several objectives")],
)
def test_studies_that_say_nothing_about_this_one_are_refused(tmp_path: Path, directions: list[str], words: str):
    first = study_of(tmp_path / "a", space_of(lr=RATE), ({"lr": 1e-3}, 0.5))
    with pytest.raises(UserError, match=words):
        narrowed(first, space_of(lr=RATE), [], directions, tmp_path)
    with pytest.raises(UserError, match=r"hydra\.sweeper\.transfer=nowhere: no sweep and no study"):
        narrowed("nowhere", space_of(lr=RATE), [], UP, tmp_path)


# --- priors -----------------------------------------------------------------------------------------------------------


def test_priors_are_the_distributions_that_they_name():
    """Within the range, by SciPy's truncated normal."""
    space = space_of(
        lr=RATE, momentum=FloatDistribution(0.0, 1.0), rank=IntDistribution(2, 30, step=4),
        adapter=CategoricalDistribution(["lora", "soma", "dora"]),
    )  # fmt: skip
    priors = read_priors(
        {"lr": "lognormal(1e-3, 2)", "momentum": "normal(0.9, 0.2)", "rank": "normal(10,4)",
         "adapter": {"lora": 3, "soma": 1}}, space, 0,
    )  # fmt: skip
    assert priors is not None
    drawn = []
    for seed in range(60):
        again = type(priors)(priors.of, seed)
        drawn += [again.point(number) for number in range(STRENGTH)]
    logs, momenta = np.log([p["lr"] for p in drawn]), np.array([p["momentum"] for p in drawn])
    ends = [(math.log(end) - math.log(1e-3)) / 2 for end in (1e-5, 1e-1)]
    assert stats.kstest(logs, stats.truncnorm(*ends, loc=math.log(1e-3), scale=2).cdf).pvalue > 0.01
    assert stats.kstest(momenta, stats.truncnorm(-4.5, 0.5, loc=0.9, scale=0.2).cdf).pvalue > 0.01
    assert {p["rank"] for p in drawn} <= {2, 6, 10, 14, 18, 22, 26, 30}
    lora = sum(p["adapter"] == "lora" for p in drawn)
    assert stats.binomtest(lora, len(drawn), 0.75).pvalue > 0.01 and all(p["adapter"] != "dora" for p in drawn)
    for point in drawn[:100]:
        for key, value in point.items():
            assert space.distributions[key]._contains(space.distributions[key].to_internal_repr(value))


def test_priors_fade_and_tell_a_trial_the_same_again():
    priors = read_priors({"lr": "lognormal(1e-3,0.5)"}, space_of(lr=RATE), 3)
    assert priors is not None
    points = [priors.point(number) for number in range(1000)]
    assert None not in points[:STRENGTH] and points == [priors.point(number) for number in range(1000)]
    later = sum(point is not None for point in points[STRENGTH:])
    expected = sum(STRENGTH / (n + 1) for n in range(STRENGTH, 1000))
    assert abs(later - expected) < 3 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ({"x": "normal(1,1)"}, "hydra.sweeper.prior.x: the sweep does not vary it"),
        ({"lr": "lognormal(1e-3)"}, r"prior.lr=lognormal\(1e-3\): write normal\(mean,sd\)"),
        ({"lr": "normal(a,b)"}, "write normal"),
        ({"lr": "lognormal(1e-3,0)"}, "write normal"),
        ({"lr": "lognormal(1,1)"}, r"prior.lr=lognormal\(1,1\): 1 lies outside of 1e-05 to 0.1"),
        ({"share": "lognormal(0.5,1)"}, "the range begins at 0.0; a logarithm needs more than 0"),
        ({"kind": "normal(1,1)"}, r"write weights of its choices, a, b: \{a: 3, b: 1\}"),
        ({"kind": {"c": 1}}, "write weights of its choices, a, b"),
        ({"kind": {"a": -1}}, "weights must not be negative"),
    ],
)
def test_priors_that_make_no_sense_are_one_line(prior: dict, words: str):
    space = space_of(lr=RATE, share=FloatDistribution(0.0, 1.0), kind=CategoricalDistribution(["a", "b"]))
    with pytest.raises(UserError, match=words) as refused:
        read_priors(prior, space, 0)
    assert "\n" not in str(refused.value)
