"""Which trials pause where, and which go on: by hand, and against what the papers say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import create_trial

from recyclelora.sweep.ledger import Trial
from recyclelora.sweep.proposals import propose, seen
from recyclelora.sweep.rungs import Rungs
from recyclelora.sweep.space import Space
from recyclelora.system.errors import UserError

ASHA = {"kind": "asha", "min_resource": 1, "max_resource": "auto", "reduction_factor": 3}
RUNGS = Rungs.of(ASHA, 9)


def trial(number: int, state: str, until: int | None, **rungs: float | None) -> Trial:
    found = Trial(Path(f"{number:04d}"), number, {}, [], [[]], state=state, until=until)
    found.rungs = {key.removeprefix("at"): value for key, value in rungs.items()}
    return found


@pytest.mark.parametrize(
    ("options", "max_steps", "steps"),
    [
        ({}, 9, (1, 3)),
        ({}, 10, (1, 3, 9)),
        ({"min_resource": 4}, 100, (4, 12, 36)),
        ({"min_resource": "auto"}, 40_000, (1482, 4446, 13338)),  # about 1/27, 1/9, 1/3
        ({"min_resource": "auto", "reduction_factor": 4}, 100, (2, 8, 32)),
        ({"reduction_factor": 2}, 9, (1, 2, 4, 8)),
        ({"max_resource": 27}, 100, (1, 3, 9)),
        ({"min_resource": "auto"}, 2, (1,)),
    ],
)
def test_rungs_are_at_powers_of_the_factor_below_the_end(options: dict, max_steps: int, steps: tuple[int, ...]):
    found = Rungs.of({**ASHA, **options}, max_steps)
    assert found.steps == steps
    assert [found.after(7, step) for step in (0, *steps)] == [*steps, None]


@pytest.mark.parametrize(
    ("options", "max_steps", "match"),
    [
        ({"min_resource": 9}, 9, "min_resource=9: must be between 1 and 8"),
        ({"min_resource": 0}, 9, "min_resource=0"),
        ({"min_resource": 1.5}, 9, "min_resource=1.5"),
        ({"reduction_factor": 1}, 9, "reduction_factor=1"),
        ({"max_resource": 10}, 9, "trainer.max_steps=9 ends before"),
        ({}, 1, "max_resource=1: must be the steps of a trial"),
        ({}, None, "max_resource=None"),
    ],
)
def test_options_that_leave_no_rungs_are_refused(options: dict, max_steps: int | None, match: str):
    with pytest.raises(UserError, match=match):
        Rungs.of({**ASHA, **options}, max_steps)


def test_trials_of_other_lengths_are_refused():
    with pytest.raises(UserError, match=r"trainer\.max_steps=12: .* of 9 steps"):
        RUNGS.check(12)
    RUNGS.check(9)


def test_one_of_three_goes_on_the_highest_rung_first():
    paused = [trial(i, "paused", 1, at1=value) for i, value in enumerate((0.1, 0.5, 0.3, 0.2, 0.4, 0.0))]
    assert RUNGS.to_promote(paused[:2], maximize=True, over=False) is None
    promoted = RUNGS.to_promote(paused, maximize=True, over=False)
    assert promoted is paused[1]
    assert RUNGS.to_promote(paused, maximize=False, over=False) is paused[5]
    higher = [trial(6 + i, "paused", 3, at1=0.9, at3=value) for i, value in enumerate((0.1, 0.3, 0.2))]
    assert RUNGS.to_promote(paused + higher, maximize=True, over=False) is higher[1]
    running = trial(1, "running", 3, at1=0.5)
    assert RUNGS.to_promote([running, *paused[:1], *paused[2:]], maximize=True, over=False) is paused[4]


def test_without_a_value_a_trial_is_the_last_of_its_rung():
    paused = [trial(0, "paused", 1, at1=None), trial(1, "paused", 1, at1=-2.0), trial(2, "paused", 1, at1=-1.0)]
    assert RUNGS.to_promote(paused, maximize=True, over=False) is paused[2]
    assert RUNGS.to_promote(paused, maximize=False, over=False) is paused[1]


def test_at_the_end_the_best_of_every_rung_goes_on_however_few_there_are():
    paused = [trial(0, "paused", 1, at1=0.1), trial(1, "paused", 1, at1=0.2)]
    assert RUNGS.to_promote(paused, maximize=True, over=True) is paused[1]
    running = trial(1, "running", 3, at1=0.2)
    assert RUNGS.to_promote([paused[0], running], maximize=True, over=True) is None
    failed = trial(1, "failed", 3, at1=0.2)
    assert RUNGS.to_promote([paused[0], failed], maximize=True, over=True) is paused[0]
    done = trial(1, "complete", None, at1=0.2, at3=0.3)
    assert RUNGS.to_promote([paused[0], done], maximize=True, over=True) is None


def test_brackets_share_the_trials_as_hyperband_does():
    rungs = Rungs.of({**ASHA, "kind": "hyperband"}, 27)
    assert rungs.brackets == 4
    counts = Counter(rungs.bracket(number) for number in range(4900))
    sizes = {
        0: 27,
        1: 12,
        2: 6,
        3: 4,
    }  # Li et al. 2018, section 3: ceil((s_max + 1) / (s + 1) eta^s) for s = 3, 2, 1, 0
    assert all(abs(counts[b] / 100 - size) < 0.05 for b, size in sizes.items())
    assert Counter(rungs.bracket(number) for number in range(49)).keys() == set(range(4))
    by_bracket = {rungs.bracket(n): rungs.below(n) for n in range(49)}
    assert by_bracket == {0: (1, 3, 9), 1: (3, 9), 2: (9,), 3: ()}


def test_trials_are_compared_within_their_bracket():
    rungs = Rungs.of({**ASHA, "kind": "hyperband"}, 9)
    in_first = [n for n in range(60) if rungs.bracket(n) == 0][:3]
    in_second = [n for n in range(60) if rungs.bracket(n) == 1][:3]
    low = [trial(n, "paused", 1, at1=0.1 * n) for n in in_first]
    high = [trial(n, "paused", 3, at3=9.0) for n in in_second[:2]]
    assert rungs.to_promote([*low, *high], maximize=True, over=False) is low[2]
    assert rungs.is_among_best(low[2], [*low, *high], maximize=True)
    assert not rungs.is_among_best(low[1], [*low, *high], maximize=True)


X = FloatDistribution(0.0, 1.0)


def at_rungs(number: int, x: float, state: str, until: int | None, *values: float) -> Trial:
    found = trial(number, state, until, **{f"at{step}": value for step, value in zip((1, 3), values, strict=False)})
    found.params, found.distributions = {"x": x}, {"x": distribution_to_json(X)}
    found.values = [values[-1]] if state == "complete" else None
    return found


def shown(trials: list[Trial], enough: int, earlier: int = 0) -> list[tuple[float, float | None]]:
    before = [create_trial(value=9.0, params={"x": 0.9}, distributions={"x": X}) for _ in range(earlier)]
    return [(t.params["x"], t.value) for t in seen(RUNGS, trials, before, enough)]


def test_a_sampler_sees_the_highest_rung_that_enough_trials_have_reached():
    trials = [
        at_rungs(0, 0.0, "paused", 1, 0.1),
        at_rungs(1, 0.1, "paused", 3, 0.2, 0.4),
        at_rungs(2, 0.2, "complete", None, 0.3, 0.5, 0.7),
        at_rungs(3, 0.3, "running", 1),
        at_rungs(4, 0.4, "running", 3, 0.25),
        at_rungs(5, 0.5, "failed", 3, 0.6),
    ]
    running = (0.3, None)
    first = [(0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.4, 0.25), (0.5, 0.6), running]
    assert shown(trials, enough=3) == first
    assert shown(trials, enough=99) == first  # there is nothing lower
    assert shown(trials, enough=2) == [(0.1, 0.4), (0.2, 0.5), running, (0.4, None)]
    assert shown(trials, enough=1) == [(0.2, 0.7), running, (0.4, None)]
    assert shown(trials, enough=2, earlier=1) == [(0.9, 9.0), (0.2, 0.7), running, (0.4, None)]


def test_tpe_proposes_by_what_is_known_at_a_rung():
    """As Optuna's own TPE does of finished trials with these values, and other than without any."""
    space, study = Space({"x": X}, ["x"], {}), optuna.create_study(direction="maximize")
    trials = [at_rungs(i, x, "paused", 1, -((x - 0.7) ** 2)) for i, x in enumerate(np.linspace(0, 1, 20))]
    proposed = [
        propose(optuna.samplers.TPESampler(seed=seed), space, RUNGS, trials, study, 10)["x"] for seed in range(5)
    ]
    for seed, x in enumerate(proposed):
        own = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        for each in trials:
            own.add_trial(create_trial(value=each.rungs["1"], params=each.params, distributions={"x": X}))
        assert own.ask().suggest_float("x", 0.0, 1.0) == x
    assert abs(np.mean(proposed) - 0.7) < 0.1
