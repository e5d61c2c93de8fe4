"""What a sweep has cost, and what is left of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from recyclelora.runs.unit import Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.cost import cost_of, duration
from recyclelora.sweep.ledger import COMPLETE, RUNNING, Ledger, Trial, now
from recyclelora.sweep.race.rules import Decision, Entrant, Race, Standing


def finished(sweep: Path, number: int, seconds: float, kind: str = "search") -> Trial:
    trial = Ledger(sweep).add(number, {}, [], [[]], {}, kind)
    trial.attempts = [Attempt(0, 1, "job", now(), now())]
    Unit(trial.unit_folder(0)).outcome("complete", attempt=1, seconds=seconds, values=[1.0])
    trial.end(COMPLETE, values=[1.0])
    return trial


def test_hours_are_counted_and_what_is_left_is_told_from_the_median(tmp_path: Path):
    trials = [finished(tmp_path, number, seconds) for number, seconds in enumerate((60.0, 100.0, 500.0))]
    running = Ledger(tmp_path).add(3, {}, [], [[]], {})
    running.state = RUNNING
    Unit(running.unit_folder(0)).started(1, "job")
    begun = time.time() - 40
    os.utime(running.unit_folder(0) / "started.json", (begun, begun))
    cost = cost_of([*trials, running], 6)
    assert cost.spent == pytest.approx(700, abs=5)
    assert (cost.typical, cost.fewest, cost.most, cost.running) == (100.0, 3, 3, 1)
    assert str(cost) == "12 min of runs so far; about 5 min left (3 runs of 100 s, the median here)"
    assert str(cost_of(trials, 3)) == "11 min of runs so far"
    assert str(cost_of([], 3)) == "0 s of runs so far"


def test_gpu_hours_are_told_where_trials_have_more_or_less_than_one(tmp_path: Path):
    trials = [finished(tmp_path, number, 3600.0) for number in range(2)]
    for trial, gpus in zip(trials, (1, 4), strict=True):
        trial.attempts[0].gpus, trial.attempts[0].seconds = gpus, 3600.0
    assert str(cost_of(trials[:1], 1)) == "60 min of runs so far"
    assert str(cost_of(trials, 2)) == "2.0 h of runs (5.0 GPU hours) so far"


def test_a_race_has_a_range(tmp_path: Path):
    trials = [finished(tmp_path, number, 3600.0, "confirm") for number in range(2)]
    undecided = Decision("undecided", 1, None, None)
    standings = [
        Standing(Entrant("a", (1.0,), reference=True), waits_for=(1,)),
        Standing(Entrant("b", (1.0,)), {"a": undecided}, waits_for=(0,)),
    ]
    cost = cost_of(trials, 2, (Race(("a",), "objective", 0.05, 6), standings))
    assert (cost.fewest, cost.most) == (2, 10)
    assert str(cost).startswith("2.0 h of runs so far; about 2.0 h to 10.0 h left (2 to 10 runs of 60 min")


def test_durations_have_the_unit_that_people_use():
    assert [duration(seconds) for seconds in (5, 119, 120, 7199, 9000)] == ["5 s", "119 s", "2 min", "120 min", "2.5 h"]
