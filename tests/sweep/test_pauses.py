"""Sweeps whose trials pause at rungs."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from replaying import Replay, curve, grid, replay, states

from recyclelora.runs.unit import CANCELLED, Unit
from recyclelora.sweep import ledger
from recyclelora.sweep.control import cancel
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.race.rules import BEST, OBJECTIVE, Race
from recyclelora.sweep.rungs import Rungs


def last_steps(sweep: Path) -> dict[int, int]:
    """x -> the last step of its trial."""
    return {t.params["x"]: max(map(int, [*t.rungs, *(["9"] if t.values else [])])) for t in Ledger(sweep).trials()}


def test_of_nine_three_get_to_the_second_rung_and_one_to_the_end(tmp_path: Path):
    executor = Replay(curve, 1)
    replay(tmp_path, grid(range(9, 0, -1)), executor)
    assert states(tmp_path) == {"complete": 1, "paused": 8}
    assert last_steps(tmp_path) == {9: 9, 8: 3, 7: 3, **dict.fromkeys(range(1, 7), 1)}
    assert len(executor.played) == len(set(executor.played))  # no step twice


def test_promotion_comes_before_new_trials(tmp_path: Path):
    executor = Replay(curve, 1)
    replay(tmp_path, grid([3, 2, 1, 4, 5]), executor)
    assert executor.played[:5] == [(0, 1), (1, 1), (2, 1), (0, 2), (0, 3)]


def test_a_trial_that_is_among_the_best_need_not_leave_its_place(tmp_path: Path):
    executor = Replay(curve, 1, slow=True)
    replay(tmp_path, grid([1, 2, 3, 4]), executor)
    attempts = {t.number: len(t.attempts) for t in Ledger(tmp_path).trials()}
    assert attempts[2] < attempts[3] or attempts[2] == 1 or attempts[3] == 1
    assert len(executor.played) == len(set(executor.played))


def test_more_trials_take_paused_ones_further(tmp_path: Path):
    replay(tmp_path, grid([9, 8, 7]), Replay(curve, 1))
    assert last_steps(tmp_path) == {9: 9, 8: 1, 7: 1}
    replay(tmp_path, grid([9, 8, 7, 1, 2, 3]), Replay(curve, 1))
    assert last_steps(tmp_path)[8] == 3


def test_a_cancelled_paused_trial_is_never_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("recyclelora.sweep.settling.LOOK_BACK", 0.0)
    replay(tmp_path, grid([9, 8, 7]), Replay(curve, 1))
    cancel(tmp_path, [1])
    replay(tmp_path, grid([9, 8, 7, 1, 2, 3]), Replay(curve, 1))
    (cancelled,) = [t for t in Ledger(tmp_path).trials() if t.number == 1]
    assert (cancelled.state, cancelled.reason) == ("failed", CANCELLED)


def test_cancelling_a_sweep_leaves_what_is_paused(tmp_path: Path):
    replay(tmp_path, grid([9, 8, 7]), Replay(curve, 1))
    cancel(tmp_path, [])
    assert not any(Unit(t.unit_folder(0)).stop_reason() for t in Ledger(tmp_path).trials())


def test_repeats_follow_when_the_first_one_has_got_to_the_end(tmp_path: Path):
    executor = Replay(curve, 2)
    replay(tmp_path, grid([1, 2, 3], seeds=[0, 1]), executor)
    assert states(tmp_path) == {"complete": 1, "paused": 2}
    (complete,) = [t for t in Ledger(tmp_path).trials() if t.state == "complete"]
    assert complete.params == {"x": 3}
    assert len(complete.attempts_of(1)) == 1 and complete.outcomes()[1]["status"] == "complete"


def test_the_best_of_a_search_that_pauses_race_to_the_end_of_their_schedules(tmp_path: Path):
    """The race pauses none of its entrants, and resumes none of the search."""

    def noisy(overrides: Sequence[str]) -> dict[int, float]:
        seed = next((text for text in overrides if text.startswith("seed=")), "")
        return {step: value + random.Random(repr(sorted(overrides))).gauss(0, 0.1) * bool(seed)
                for step, value in curve(overrides).items()}  # fmt: skip

    race = Race((BEST,), OBJECTIVE, 0.05, 12)
    plan = grid(range(1, 19), confirm=2, confirm_seeds=[100], race=race, race_first=[100])
    driver = replay(tmp_path, plan, Replay(noisy, 2))
    entrants = [t for t in Ledger(tmp_path).trials() if t.confirms]
    assert {t.params["x"] for t in entrants} == {18, 17} and all(t.state == "complete" for t in entrants)
    assert {len(t.units) for t in entrants} != {12}  # decided before the last seed
    assert all(t.until is None and not t.rungs for t in entrants)
    assert {t.units[0][-1] for t in entrants} == {"seed=100"}
    before = {t.number: t.until for t in Ledger(tmp_path).trials() if t.state == "paused"}
    assert before and not driver.units.jobs
    replay(tmp_path, plan, Replay(noisy, 2))  # nothing is left to do
    assert {t.number: t.until for t in Ledger(tmp_path).trials() if t.state == "paused"} == before


def test_the_best_are_confirmed_although_others_stay_paused(tmp_path: Path):
    replay(tmp_path, grid(range(1, 7), confirm=1, confirm_seeds=[7]), Replay(curve, 2))
    (confirmation,) = [t for t in Ledger(tmp_path).trials() if t.confirms]
    assert (confirmation.state, confirmation.number, confirmation.until) == ("complete", 5, None)


class Killed(BaseException):
    """SIGKILL, to a process that cannot run its cleaning up."""


@pytest.mark.parametrize("brackets", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_drivers_that_are_killed_anywhere_repeat_and_lose_nothing(
    tmp_path: Path, brackets: int, monkeypatch: pytest.MonkeyPatch
):
    """Fifty drivers die at, or just after, a random write to the ledger, their jobs with them or not."""
    chance, plan = random.Random(brackets), grid(range(1, 28), rungs=Rungs((1, 3), 9, 3, brackets))
    write, left, after = ledger.write_json, -1, False

    def write_or_die(path: Path, content: object) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        write(path, content)
        if left == 0:
            raise Killed

    monkeypatch.setattr(ledger, "write_json", write_or_die)
    executors = [Replay(curve, 3)]
    for _ in range(50):
        left, after = chance.randrange(1, 15), chance.random() < 0.5
        if chance.random() < 0.5:
            executors.append(Replay(curve, 3, slow=chance.random() < 0.5))
        with contextlib.suppress(Killed):
            replay(tmp_path, plan, executors[-1])
    left = -1
    replay(tmp_path, plan, executors[-1])
    trials = Ledger(tmp_path).trials()
    assert [t.params["x"] for t in trials] == list(range(1, 28))
    assert {t.state for t in trials} == {"complete", "paused"}
    played = [step for executor in executors for step in executor.played]
    assert len(played) == len(set(played))  # every step of every trial once
    for t in trials:
        assert all(value == curve([f"x={t.params['x']}"])[int(step)] for step, value in t.rungs.items())
    for bracket in range(brackets):
        best = max(t.number for t in trials if plan.rungs and plan.rungs.bracket(t.number) == bracket)
        assert trials[best].values == [best + 1.0]
