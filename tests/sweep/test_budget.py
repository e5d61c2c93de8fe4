"""What a sweep may spend, and how it goes on with more."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from replaying import RUNGS, Replay, curve, grid, replay, states

from recyclelora.runs.unit import Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.budget import Budget
from recyclelora.sweep.cost import gpu_hours
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.planning import Plan
from recyclelora.system.errors import UserError


def budget(text: str) -> Budget:
    found = Budget.parse(text, 9)
    assert found is not None
    return found


def trained(sweep: Path) -> int:
    """Steps, by the last report of every unit."""
    found = Ledger(sweep).trials()
    return sum(max([0, *map(int, t.rungs), *([9] if t.values else [])]) for t in found)


def spending(text: str, plan: Plan) -> Plan:
    return dataclasses.replace(plan, budget=budget(text))


@pytest.mark.parametrize("text", ["12", "12 hrs", "0 steps", "-3 hours", "steps", "1 steps 2 hours"])
def test_a_budget_is_an_amount_and_what_of(text: str):
    with pytest.raises(UserError, match="write '20000 steps', '12 gpu_hours' or '8 hours'"):
        Budget.parse(text, 9)


def test_steps_cannot_be_counted_of_what_has_none():
    with pytest.raises(UserError, match=r"no trainer\.max_steps"):
        Budget.parse("9 steps", None)
    assert str(Budget.parse("1e3 steps", 9)) == "1000 steps" and Budget.parse(None, None) is None


@pytest.mark.parametrize("at_once", [1, 3])
def test_steps_are_never_exceeded_and_a_larger_budget_goes_on(tmp_path: Path, at_once: int):
    """Nine trials at a rung of one step each, three more rungs by halving: 9 + 3 * 2 + 6 steps at best."""
    plan = grid(range(9, 0, -1))
    driver = replay(tmp_path, spending("8 steps", plan), Replay(curve, at_once))
    assert driver.search.broke and trained(tmp_path) <= 8
    assert states(tmp_path).keys() == {"paused"}  # nothing hangs half-way
    driver = replay(tmp_path, spending("12 steps", plan), Replay(curve, at_once))
    assert driver.search.broke and 8 < trained(tmp_path) <= 12
    driver = replay(tmp_path, spending("1000 steps", plan), Replay(curve, at_once))
    assert not driver.search.broke and states(tmp_path)["complete"] >= 1
    whole = replay(tmp_path / "whole", plan, Replay(curve, at_once))
    assert not whole.search.broke


def test_without_pauses_whole_trials_are_counted_with_their_repeats(tmp_path: Path):
    plan = grid(range(1, 6), rungs=None, seeds=[0, 1])
    driver = replay(tmp_path, spending("40 steps", plan), Replay(curve, 2))
    assert driver.search.broke and states(tmp_path) == {"complete": 2}
    replay(tmp_path, spending("54 steps", plan), Replay(curve, 2))
    assert states(tmp_path) == {"complete": 3}


def test_confirmations_need_their_share(tmp_path: Path):
    plan = grid([1, 2], rungs=None, confirm=1, confirm_seeds=[5, 6])
    driver = replay(tmp_path, spending("35 steps", plan), Replay(curve, 2))
    assert driver.search.broke and len(Ledger(tmp_path).trials()) == 2
    replay(tmp_path, spending("36 steps", plan), Replay(curve, 2))
    assert len(Ledger(tmp_path).trials()) == 3 and states(tmp_path) == {"complete": 3}


def test_used_up_hours_start_nothing(tmp_path: Path):
    for text, seconds in (("90 minutes", 5400), ("1 hours", 3600), ("0.5 days", 43200)):
        now = budget(text)
        assert str(now) == text and dataclasses.replace(now, began=now.began - seconds + 60).allows([], 0)
        assert not dataclasses.replace(now, began=now.began - seconds - 1).allows([], 0)
    over = dataclasses.replace(budget("1 hours"), began=budget("1 hours").began - 3601)
    driver = replay(tmp_path, dataclasses.replace(grid([1, 2, 3]), budget=over), Replay(curve, 2))
    assert driver.search.broke and not Ledger(tmp_path).trials()


def test_gpu_hours_are_those_of_jobs_that_ran(tmp_path: Path):
    trial = Ledger(tmp_path).add(0, {}, [], [[]], {})
    trial.attempts = [Attempt(0, 1, "a", "", ended="2026-01-01T00:00:00+0000", seconds=1800.0), Attempt(0, 2, "b", "")]
    assert gpu_hours([trial]) == 0.5  # the second one waits in a queue
    unit = Unit(trial.unit_folder(0))
    unit.started(2, "b")
    unit.outcome("complete", attempt=2, seconds=5400.0, values=[1.0])
    assert gpu_hours([trial]) == 2.0
    assert budget("3 gpu_hours").allows([trial], 0)
    trial.attempts[1].gpus = 4
    assert gpu_hours([trial]) == 6.5 and not budget("3 gpu_hours").allows([trial], 0)


def test_a_trial_reserves_what_it_may_train(tmp_path: Path):
    trial = Ledger(tmp_path).add(0, {}, [], [[], []], {})
    counted = []
    for state, until, rungs in (("waiting", 1, {}), ("paused", 1, {"1": 0.5}), ("running", 3, {"1": 0.5}),
                                ("running", None, {"1": 0.5}), ("complete", None, {})):  # fmt: skip
        trial.state, trial.until, trial.rungs = state, until, rungs
        counted.append(budget("1 steps").steps([trial]))
    assert counted == [1, 1, 3, 18, 18]
    assert RUNGS.after(0) == 1 and budget("9 steps").cost(1) == 1 and budget("9 steps").cost(None, 3, 2) == 15
