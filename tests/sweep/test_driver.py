"""Drivers that share a study know of each other."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, distribution_to_json

from recyclelora.runs.unit import Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.control import extend
from recyclelora.sweep.driver import Driver
from recyclelora.sweep.execution import Stage, Status
from recyclelora.sweep.folder import busy
from recyclelora.sweep.ledger import Ledger, Trial
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.search import Search
from recyclelora.sweep.space import Space
from recyclelora.sweep.steering import Requests, alive, living, request_trials
from recyclelora.sweep.study import open_study, tell_late
from recyclelora.system.errors import UserError
from recyclelora.system.storage import LOCK, locked, taking_turns, write_json

X = CategoricalDistribution([1, 2])
PLAN = Plan(Space({"x": X}, ["x"], {}), n_trials=2, planned=[{"x": 1}, {"x": 2}], sampler=None, shared=True)


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


def driver(sweep: Path, study: optuna.Study, name: str) -> Driver:
    made = Driver(PLAN, study, Ledger(sweep), None, None, optuna.create_study)  # type: ignore[arg-type]
    made.search.driver = name
    return made


def test_of_two_successors_one_takes_over(tmp_path: Path, study: optuna.Study):
    """Both have read the ledger of a dead driver before either has its turn."""
    left = Ledger(tmp_path).add(0, {"x": 1}, ["x=1"], [["x=1"]], {"x": distribution_to_json(X)}, plan=0)
    left.driver = "dead-1"
    left.save_state()
    first, second = driver(tmp_path, study, "a-2"), driver(tmp_path, study, "b-3")
    with alive(tmp_path, "a-2"):
        first._take_over()
        second._take_over()
        assert living(tmp_path) == ["process 2 on a"]
    assert [trial.number for trial, _ in first.units.queue] == [0] and second.units.queue == []
    assert [trial.driver for trial in Ledger(tmp_path).trials()] == ["a-2"]


def test_a_new_trial_is_its_drivers_before_the_next_turn(tmp_path: Path, study: optuna.Study):
    search = Search(PLAN, study, Ledger(tmp_path), "a-2")
    assert [trial.params for trial in (search.next(), search.next()) if trial] == [{"x": 1}, {"x": 2}]
    assert [trial.driver for trial in Ledger(tmp_path).trials()] == ["a-2", "a-2"]
    assert search.next() is None
    search.trials["0000"].end("failed", reason="nan")
    assert search.failures == 1 and not search.too_many_failures


def test_a_request_is_new_once_for_every_driver(tmp_path: Path):
    first, second = Requests(tmp_path, 5), Requests(tmp_path, 5)
    assert first.new() is None
    request_trials(tmp_path, 7, 5)
    assert (first.new(), second.new(), first.new()) == (7, 7, None)


def test_a_trial_killed_while_its_driver_is_told_to_stop_loses_no_try(tmp_path: Path, study: optuna.Study):
    alone = Driver(PLAN, study, Ledger(tmp_path), None, None, optuna.create_study)  # type: ignore[arg-type]
    trial = alone.search.next()
    assert trial is not None
    trial.attempts.append(Attempt(0, 1, "job", ""))
    Unit(trial.unit_folder(0)).started(1, "job")
    alone.stop = 15
    alone.units._settle_unit(trial, 0, Status(Stage.GONE, "killed by SIGKILL", node_fault=True))
    (attempt,) = Ledger(tmp_path).trials()[0].attempts
    assert attempt.excused and alone.units.queue == [(trial, 0)]


def test_what_a_trial_has_reached_is_kept_with_its_attempt(tmp_path: Path, study: optuna.Study):
    alone = Driver(PLAN, study, Ledger(tmp_path), None, None, optuna.create_study)  # type: ignore[arg-type]
    alone.observer = SimpleNamespace(event=print)  # type: ignore[assignment]
    trial = alone.search.next()
    assert trial is not None
    for number, step in enumerate((3, 6, 9, 9, 9), 1):
        trial.attempts.append(Attempt(0, number, "job", ""))
        Unit(trial.unit_folder(0)).started(number, "job")
        Unit(trial.unit_folder(0)).progress(step, 10, 1.0)
        alone.units._settle_unit(trial, 0, Status(Stage.GONE, "killed by SIGKILL", node_fault=True))
    (stored,) = Ledger(tmp_path).trials()
    assert [a.reached for a in stored.attempts] == [3, 6, 9, 9, 9]
    assert stored.state == "failed" and stored.reason == "killed by SIGKILL; 5 attempts"


def test_a_request_outlives_the_driver_until_the_command_asks_for_something_else(tmp_path: Path):
    request_trials(tmp_path, 0, 5)
    assert Requests(tmp_path, 5).new() == 0 and Requests(tmp_path, 5).new() == 0
    changed = Requests(tmp_path, 6)
    assert changed.new() is None
    request_trials(tmp_path, 9, 6)
    assert changed.new() == 9
    (tmp_path / "control.json").write_text('{"n_trials": 3}')  # of the first release
    assert Requests(tmp_path, 5).new() == 3


@pytest.mark.parametrize("n_trials", [3, 60])
def test_a_grid_is_not_extended_but_goes_on_after_a_cancel(tmp_path: Path, n_trials: int, capsys):
    about = {"name": "s", "n_trials": 4, "command": "train.py -m seed=0,1,2,3", "sampler": None,
             "directions": ["maximize"], "objectives": ["miou"], "created": "2026-01-01T00:00:00+0000"}  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps(about))
    with pytest.raises(
        UserError, match=r"a grid has the 4 trials of its values; give .*train.* -m seed=0,1,2,3 further"
    ):
        extend(tmp_path, n_trials)
    assert Requests(tmp_path, 4).new() is None
    extend(tmp_path, 4)
    assert Requests(tmp_path, 4).new() == 4
    (tmp_path / "study.json").write_text(json.dumps(about | {"sampler": "TPESampler"}))
    extend(tmp_path, n_trials)
    assert Requests(tmp_path, 4).new() == n_trials


def test_a_cancelled_sweep_asks_for_nothing_and_confirms_nothing(tmp_path: Path, study: optuna.Study):
    search = Search(dataclasses.replace(PLAN, confirm=1), study, Ledger(tmp_path), "a-2")
    trial = search.next()
    assert trial is not None
    trial.end("complete", values=[1.0])
    search.n_trials = 0
    assert search.next() is None


def test_what_still_runs_of_a_sweep_is_seen(tmp_path: Path):
    trial = Ledger(tmp_path).add(3, {}, [], [[]], {})
    (tmp_path / "trial_0003-0000000000000000").mkdir()
    assert busy(tmp_path) == []
    with locked(tmp_path / "trial_0003-0000000000000000"), taking_turns(trial.unit_folder(0) / LOCK):
        assert [text.split(":")[0] for text in busy(tmp_path)] == [
            "ledger/0003/unit_0", "trial_0003-0000000000000000",
        ]  # fmt: skip
    with alive(tmp_path, "a-2"):
        assert busy(tmp_path) == ["process 2 on a"]


@pytest.mark.parametrize("text", ["null", "[]", '{"n_trials": "7"}', '{"n_trials": -1}', "{"])
def test_a_request_that_makes_no_sense_is_said_once(tmp_path: Path, text: str):
    (tmp_path / "control.json").write_text(text)
    requests = Requests(tmp_path, 2)
    with pytest.raises(UserError, match=r"control\.json: "):
        requests.new()
    assert requests.new() is None


def test_a_file_system_that_does_not_answer_is_no_other_folder(tmp_path: Path, study: optuna.Study, monkeypatch):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    alone, stat = driver(sweep, study, "a-2"), Path.stat

    def stale(path: Path, **options: bool) -> os.stat_result:
        if path == sweep:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return stat(path, **options)

    with monkeypatch.context() as away:
        away.setattr(Path, "stat", stale)
        alone._restore()
        begun = driver(sweep, study, "b-3")
    for one in (alone, begun):
        one._restore()
    sweep.rename(tmp_path / "other")
    for one in (alone, begun):
        with pytest.raises(UserError, match="was renamed or removed while its sweep ran"):
            one._restore()
    sweep.mkdir()
    with pytest.raises(UserError, match="was renamed or removed while its sweep ran"):
        alone._restore()


def test_late_outcomes_that_make_no_values_are_looked_at_once(tmp_path: Path, study: optuna.Study, monkeypatch):
    alone, said = Driver(PLAN, study, Ledger(tmp_path), None, None, optuna.create_study), []  # type: ignore[arg-type]
    alone.observer = SimpleNamespace(event=said.append)  # type: ignore[assignment]
    trial = alone.search.next()
    assert trial is not None
    trial.driver = alone.search.driver
    trial.attempts.append(Attempt(0, 1, "job", "", node_fault=True))
    trial.end("failed", reason="lost")
    monkeypatch.setattr("recyclelora.sweep.settling.LOOK_BACK", 0.0)
    alone.units.take_late()
    assert said == []
    outcome = {"attempt": 1, "status": "complete", "reason": None, "values": [1.0, 2.0]}
    write_json(trial.unit_folder(0) / "outcome.json", outcome)
    for _ in range(3):
        alone.units.take_late()
    assert len(said) == 1 and trial.reason == "returned 2 values, not 1 as hydra.sweeper.direction says"


def test_a_late_result_is_told_to_optuna_at_once_and_is_no_difference_later(tmp_path: Path, monkeypatch):
    def study_of(trials: Sequence[Trial]) -> tuple[optuna.Study, list[str]]:
        return open_study(f"sqlite:///{tmp_path}/study.db", "mine", ["maximize"], trials, [])

    study, _ = study_of([])
    alone = driver(tmp_path, study, "a-2")
    alone.observer = SimpleNamespace(event=print)  # type: ignore[assignment]
    trial = alone.search.next()
    assert trial is not None
    trial.attempts.append(Attempt(0, 1, "job", "", node_fault=True))
    alone.units._end(trial, "failed", reason="SLURM does not know this job any more")
    Unit(trial.unit_folder(0)).outcome("complete", attempt=1, seconds=1.0, values=[0.5])
    monkeypatch.setattr("recyclelora.sweep.settling.LOOK_BACK", 0.0)
    for _ in range(2):
        alone.units.take_late()
    assert trial.values == [0.5]
    assert [(t.state.name, t.values, t.params) for t in study.trials] == [
        ("FAIL", None, {"x": 1}), ("COMPLETE", [0.5], {"x": 1}),
    ]  # fmt: skip
    again, remarks = study_of(Ledger(tmp_path).trials())
    assert remarks == [] and len(again.trials) == 2 and again.best_value == 0.5
    tell_late(again, trial)
    assert len(again.trials) == 2
    alone.search.next()
    assert [t.number for t in Ledger(tmp_path).trials()] == [0, 2]
