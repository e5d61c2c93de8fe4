"""Whole sweeps, as a user starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
from sweeping import Sweeping
from waiting import wait_for

from recyclelora.sweep import snapshot
from recyclelora.sweep.folder import make_folder, own_place
from recyclelora.sweep.ledger import Ledger
from recyclelora.system.errors import UserError
from recyclelora.system.storage import read_json


@pytest.fixture
def sweeping(tmp_path: Path) -> Sweeping:
    return Sweeping(tmp_path)


def study_of(sweeping: Sweeping) -> optuna.Study:
    return optuna.load_study(study_name="out", storage=f"sqlite:///{sweeping.folder / 'out/study.db'}")


def test_a_grid_runs_every_point_once_in_hydras_order(sweeping: Sweeping):
    code, out, err = sweeping("x=1,2,3", "y=2,4")
    assert code == 0, err
    assert [t.overrides for t in sweeping.trials] == [[f"x={x}", f"y={y}"] for x in (1, 2, 3) for y in (2, 4)]
    assert [t.values for t in sweeping.trials] == [[-4.0], [-8.0], [-1.0], [-5.0], [0.0], [-4.0]]
    assert len(sweeping.executions) == 6
    assert "6 complete" in out
    assert read_json(sweeping.folder / "out/summary.json")["best"]["overrides"] == ["x=3", "y=2"]


def test_the_same_command_runs_nothing_again(sweeping: Sweeping):
    sweeping("x=1,2")
    assert sweeping("x=1,2")[0] == 0
    assert len(sweeping.executions) == 2


def test_failures_end_nothing_and_have_their_reasons(sweeping: Sweeping):
    acts = ["raise", "user", "memory", "nan", "none", "exit", "leave", "segfault"]
    sabotage = " ".join(f"{i}:{act}" for i, act in enumerate(acts))
    code, out, err = sweeping("x=" + ",".join(map(str, range(11))), f"sabotage='{sabotage}'", "hydra.sweeper.n_jobs=2")
    assert code == 3, err
    failed = {t.number: t.reason for t in sweeping.trials if t.state == "failed"}
    assert failed == {
        0: "ValueError: the data are gone",
        1: "data.root=/nowhere: no such folder",
        2: "MemoryError: out of memory: tried to allocate 80 GiB",
        3: "the objective is nan, not a finite number",
        4: "the objective is None, not a finite number",
        5: "the trial's process left with exit code 7",
        6: "the trial left with exit code 5",
        7: "killed by SIGSEGV",
    }
    assert {t.number: t.values for t in sweeping.trials if t.state == "complete"} == {
        8: [-25.0],
        9: [-36.0],
        10: [-49.0],
    }
    assert len(sweeping.executions) == 11
    assert "the data are gone" in out and "log.txt" in out and "Traceback" not in err
    log = next((sweeping.folder / "out/ledger/0000/unit_0").glob("log.txt")).read_text()
    assert "ValueError: the data are gone" in log


def test_a_killed_trial_is_tried_again_a_bounded_number_of_times(sweeping: Sweeping):
    code, _, _ = sweeping("x=1,2", "sabotage='0:kill_once 1:kill'", "hydra.sweeper.max_retries=1")
    assert code == 3
    first, second = sweeping.trials
    assert first.state == "complete" and [a.reason for a in first.attempts] == [
        "killed by SIGKILL (out of memory?)",
        None,
    ]
    assert second.reason == "killed by SIGKILL (out of memory?); 2 attempts"
    assert len(sweeping.executions) == 4


@pytest.mark.slow
def test_a_hanging_trial_is_ended(sweeping: Sweeping):
    code, _, _ = sweeping("x=1,2", "sabotage='0:hang'", "hydra.launcher.timeout_min=0.02", "hydra.sweeper.n_jobs=2")
    assert code == 3
    assert [t.state for t in sweeping.trials] == ["failed", "complete"]
    assert "timeout_min=0.02" in (sweeping.trials[0].reason or "")


def test_enough_failures_stop_the_search(sweeping: Sweeping):
    code, out, _ = sweeping("x=1,2,3,4,5", "sabotage='0:raise 1:raise'", "hydra.sweeper.max_failures=2")
    assert code == 4
    assert sweeping.states == {"failed": 2}
    assert "max_failures" in out


@pytest.mark.slow
def test_failed_trials_run_again_when_asked(sweeping: Sweeping):
    sweeping("x=1,2,3", "sabotage='1:raise'")
    code, _, err = sweeping("x=1,2,3", "sabotage='1:raise'", "hydra.sweeper.retry_failed=true")
    assert code == 0, err
    assert [(t.overrides, t.state) for t in sweeping.trials] == [
        (["x=1"], "complete"), (["x=2"], "failed"), (["x=3"], "complete"), (["x=2"], "complete"),
    ]  # fmt: skip


TPE = ("x=interval(-5.0,5.0)", "y=choice(1,2,3)", "hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.seed=0")


def test_a_search_reaches_exactly_n_trials_and_can_be_extended(sweeping: Sweeping):
    assert sweeping(*TPE, "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2")[0] == 0
    first = [t.params for t in sweeping.trials]
    assert sweeping(*TPE, "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=2")[0] == 0
    assert sweeping.states == {"complete": 8}
    assert [t.params for t in sweeping.trials][:5] == first
    assert len({json.dumps(t.params) for t in sweeping.trials}) == 8  # a seeded sampler repeats nothing
    assert [t.value for t in study_of(sweeping).trials] == [t.values[0] for t in sweeping.trials if t.values]


def test_a_driver_that_is_killed_loses_and_repeats_nothing(sweeping: Sweeping):
    options = [*TPE, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2", "pause=0.3", "steps=2"]
    process = sweeping.start(*options)
    wait_for(lambda: sweeping.states.get("complete", 0) >= 2 and sweeping.states.get("running", 0) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, _, err = sweeping(*options)
    assert code == 0, err
    assert sweeping.states == {"complete": 6}
    assert len(sweeping.executions) == 6
    assert {t.state.name for t in study_of(sweeping).trials} == {"COMPLETE"}


@pytest.mark.slow
def test_a_trial_that_was_asked_for_but_never_written_down_is_the_next_one(sweeping: Sweeping, tmp_path: Path):
    sweeping(*TPE, "hydra.sweeper.n_trials=2")
    asked = study_of(sweeping).ask()  # as by a driver that is killed before it writes the ledger
    sweeping(*TPE, "hydra.sweeper.n_trials=3")
    assert [t.number for t in sweeping.trials] == [0, 1, 2] and asked.number == 2
    assert [t.state.name for t in study_of(sweeping).trials] == ["COMPLETE"] * 3
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Sweeping(tmp_path / "undisturbed")
    undisturbed(*TPE, "hydra.sweeper.n_trials=3")
    assert [t.params for t in sweeping.trials] == [t.params for t in undisturbed.trials]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_asked_to_stop_by_any_signal_it_saves_running_trials_and_goes_on_later(sweeping: Sweeping, number: int):
    """To the whole group of processes, as a terminal does."""
    options = ["x=1,2", "pause=0.3", "steps=3"]
    process = sweeping.start(*options)
    wait_for(lambda: sweeping.states.get("running", 0) == 1 and (sweeping.folder / "executions").exists())
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in err
    assert "the same command goes on" in out
    (first,) = sweeping.trials
    assert first.state == "waiting" and first.attempts[0].reason == "stopped by signal 15"
    assert sweeping(*options)[0] == 0
    assert sweeping.states == {"complete": 2}


@pytest.mark.slow
def test_a_second_driver_is_refused_by_name(sweeping: Sweeping):
    process = sweeping.start("x=1,2", "pause=2")
    wait_for(lambda: bool(sweeping.trials))
    code, _, err = sweeping("x=1,2", "pause=2")
    assert code == 2
    assert f"process {process.pid} on" in err and "postgresql" in err
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


slow = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["emptied", pytest.param("deleted", marks=slow), pytest.param("broken", marks=slow)])
def test_the_study_is_rebuilt_from_the_ledger(sweeping: Sweeping, damage: str):
    sweeping(*TPE, "hydra.sweeper.n_trials=4")
    before = [(t.number, t.params, t.value, t.state) for t in study_of(sweeping).trials]
    path = sweeping.folder / "out/study.db"
    for rest in ("study.db-wal", "study.db-shm"):
        (path.parent / rest).unlink(missing_ok=True)
    if damage == "deleted":
        path.unlink()
    elif damage == "broken":
        path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    else:
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM trials WHERE number > 1")
    code, out, err = sweeping(*TPE, "hydra.sweeper.n_trials=4")
    assert code == 0, err
    assert "rebuilt from the ledger" in out
    assert [(t.number, t.params, t.value, t.state) for t in study_of(sweeping).trials] == before
    assert len(sweeping.executions) == 4


@pytest.mark.slow
def test_other_settings_are_another_study(sweeping: Sweeping):
    sweeping("x=1,2", "pause=0")
    code, _, err = sweeping("x=1,2", "y=9")
    assert code == 2
    assert "y: was 2, now 9" in err and "study=" in err


@pytest.mark.slow
def test_hopeless_trials_are_pruned(sweeping: Sweeping):
    code, out, err = sweeping(
        "x=3,3.1,3.2,90", "hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2", "steps=40",
        "pause=0.1", "hydra.sweeper.n_jobs=1",
    )  # fmt: skip
    assert code == 0, err
    assert [t.state for t in sweeping.trials] == ["complete", "complete", "complete", "pruned"] or sweeping.trials[
        3
    ].state == "pruned"
    assert study_of(sweeping).trials[3].state.name == "PRUNED"
    assert "pruned" in out


def test_repeats_are_averaged_over_seeds(sweeping: Sweeping):
    assert sweeping("x=1,2", "hydra.sweeper.repeats=3", "seed=5")[0] == 0
    assert [t.values for t in sweeping.trials] == [[pytest.approx(-4 + 0.006)], [pytest.approx(-1 + 0.006)]]
    assert sorted(sweeping.executions)[:3] == [f"0000 unit_{i} seed={5 + i}" for i in range(3)]


def test_the_best_are_confirmed_on_fresh_seeds(sweeping: Sweeping):
    code, out, err = sweeping("x=1,2,3", "hydra.sweeper.confirm=1", "hydra.sweeper.confirm_seeds=[10,20]")
    assert code == 0, err
    confirmed = [t for t in sweeping.trials if t.kind == "confirm"]
    assert [(t.number, t.values) for t in confirmed] == [(2, [pytest.approx(0.015)])]
    assert "on fresh seeds" in out and re.search(r"confirmation 2 \(x=\d\) seed=(10|20): -?0\.0[12]", out), out


@pytest.mark.slow
def test_several_objectives_have_a_front(sweeping: Sweeping):
    code, _, err = sweeping("x=1,3", "y=1,2", "two=true", "hydra.sweeper.direction=[maximize,minimize]")
    assert code == 0, err
    assert {tuple(t.values) for t in study_of(sweeping).best_trials} == {(0.0, 2.0), (-1.0, 1.0)}
    code, _, _ = sweeping(
        "x=1,3", "y=1,2", "two=false", "hydra.sweeper.direction=[maximize,minimize]", "hydra.sweep.dir=o2"
    )
    assert code == 3


@pytest.mark.slow
def test_parameters_are_asked_for_only_under_their_condition(sweeping: Sweeping):
    assert sweeping(
        "mode=choice(plain,deep)", "y=choice(1,2,3)", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1",
        "hydra.sweeper.n_trials=12", "+hydra.sweeper.conditions.y='mode=deep'",
    )[0] == 0  # fmt: skip
    assert {("y" in t.params) == (t.params["mode"] == "deep") for t in sweeping.trials} == {True}
    assert {t.params["mode"] for t in sweeping.trials} == {"plain", "deep"}


@pytest.mark.slow
def test_given_points_come_first(sweeping: Sweeping):
    assert sweeping(*TPE, "hydra.sweeper.n_trials=3", "hydra.sweeper.enqueue=[{x: 2.5, y: 3}]")[0] == 0
    assert sweeping.trials[0].params == {"x": 2.5, "y": 3}
    code, _, err = sweeping(
        *TPE, "hydra.sweeper.n_trials=3", "hydra.sweeper.enqueue=[{x: 99, y: 3}]", "hydra.sweep.dir=o2"
    )
    assert code == 2 and "x=99 lies outside" in err


@pytest.mark.slow
def test_another_sweep_warms_the_sampler(sweeping: Sweeping):
    sweeping(*TPE, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=first")
    assert sweeping(*TPE, "hydra.sweeper.n_trials=3", "hydra.sweeper.warm_start=first")[0] == 0
    assert [t.number for t in sweeping.trials] == [4, 5, 6]
    assert len(study_of(sweeping).trials) == 7
    assert sweeping(*TPE, "hydra.sweeper.n_trials=3", "hydra.sweeper.warm_start=first")[0] == 0
    assert len(study_of(sweeping).trials) == 7


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "nsgaii", "nsgaiii", "qmc", "grid"])
def test_every_sampler_of_optuna_works(sweeping: Sweeping, sampler: str):
    space = ["x=choice(1,2)", "y=choice(1,2)"] if sampler == "grid" else ["x=interval(-5.0,5.0)", "y=interval(0.0,4.0)"]
    code, _, err = sweeping(
        *space, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2"
    )
    assert code == 0, err
    assert sweeping.states == {"complete": 3}


@pytest.mark.slow
def test_an_unknown_launcher_works_in_batches(sweeping: Sweeping):
    code, _, err = sweeping("x=1,2,3", "sabotage='1:raise'", "hydra/launcher=basic", "hydra.sweeper.n_jobs=2")
    assert code == 3, err
    assert [t.state for t in sweeping.trials] == ["complete", "failed", "complete"]
    assert sweeping.trials[1].reason == "ValueError: the data are gone"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x=interval(0,1)"], "needs a sampler"),
        (["hydra/sweeper/sampler=tpe"], "nothing varies"),
        (["x=1,2", "hydra.sweeper.sampler=tpe"], "with a slash: hydra/sweeper/sampler=tpe"),
        (["x=1,2", "hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs=0"),
        (["x=1,2", "hydra.sweeper.direction=up"], "maximize or minimize"),
        (["x=1,2", "hydra.sweeper.objectives=[a,b]"], "2 of them, but 1"),
        (["x=1,2", "hydra.sweeper.objectives=['movement~0.1']"], "maximize: minimize, the distance"),
        (["x=1,2", "hydra/sweeper/pruner=wilcoxon"], "repeats"),
        ([*TPE, "hydra.sweeper.constraints=[small]"], "'small' is not like"),
        ([*TPE, "hydra.sweeper.sampler._target_=os.system"], "os.system is not allowed"),
        ([*TPE, "hydra.sweeper.sampler.group=true"], "hydra.sweeper.sampler"),
        ([*TPE, "+hydra.sweeper.conditions.x='z=1'"], "does not vary z"),
        (["x=1,2", "hydra.sweeper.storage=nonsense"], "not a database URL"),
        ([*TPE, "hydra.sweeper.warm_start=nowhere"], "warm_start=nowhere"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_the_first_job(sweeping: Sweeping, options: list[str], message: str):
    code, _, err = sweeping(*options)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert not sweeping.trials


def test_a_mistake_is_one_line(sweeping: Sweeping):
    code, _, err = sweeping(*TPE, "hydra.sweeper.sampler._target_=os.system")
    assert code == 2 and "os.system is not allowed" in err and "Traceback" not in err


def test_a_dry_run_knows_what_is_complete_and_what_would_be_refused(sweeping: Sweeping):
    assert sweeping("x=1,2", "y=3")[0] == 0
    code, out, _ = sweeping("x=2,5,6", "y=3", "hydra.sweeper.dry_run=true")
    assert code == 0 and "complete already: 1 of 3 trials" in out and "2 runs" in out
    code, out, _ = sweeping("x=1", "y=3", "hydra.sweeper.dry_run=true")
    assert code == 0 and "nothing is left to run" in out
    code, out, err = sweeping("x=1,2", "y=4", "hydra.sweeper.dry_run=true")
    assert code == 2 and "was begun with other settings" in err and "y: was 3, now 4" in err
    code, _, err = sweeping("x=1,2", "y=3,4")
    assert code == 2 and "y: was 3, now varied" in err
    assert sweeping("x=1,2", "y=4", "hydra.sweeper.dry_run=true", "+fresh=true")[0] == 0


def test_a_dry_run_lists_trials_and_starts_none(sweeping: Sweeping):
    code, out, _ = sweeping("x=1,2", "y=3", "hydra.sweeper.dry_run=true")
    assert code == 0
    assert "trial 1: x=2" in out and "fixed: y=3" in out and "2 runs; how long" in out
    assert not (sweeping.folder / "out").exists()


@pytest.mark.slow
def test_named_settings_are_swept_and_the_best_of_each_is_confirmed(sweeping: Sweeping):
    code, _, err = sweeping(
        "seed=0,1", "+hydra.sweeper.points.near=['x=3','y=2']", "+hydra.sweeper.points.far=['x=9']",
        "hydra.sweeper.confirm=1",
        "hydra.sweeper.confirm_by=[point]", "hydra.sweeper.confirm_seeds=[7]",
    )  # fmt: skip
    assert code == 0, err
    assert [(t.overrides, t.values) for t in sweeping.trials if t.kind == "search"] == [
        (["point=near", "seed=0"], [0.0]), (["point=near", "seed=1"], [0.001]),
        (["point=far", "seed=0"], [-36.0]), (["point=far", "seed=1"], [-35.999]),
    ]  # fmt: skip
    assert [(t.number, t.values) for t in sweeping.trials if t.kind == "confirm"] == [(1, [0.007]), (3, [-35.993])]


def test_fresh_leaves_folders_alone_that_are_no_sweeps(tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("words")
    with pytest.raises(UserError, match=r"thesis: is no sweep of this project, so fresh=true leaves it alone"):
        make_folder(tmp_path / "thesis", fresh=True)
    assert (tmp_path / "thesis/chapter.tex").exists()
    (tmp_path / "thesis/study.json").write_text("{}")
    assert make_folder(tmp_path / "thesis", fresh=True)
    assert [path.name for path in tmp_path.glob("thesis.old-*/*.tex")] == ["chapter.tex"]
    (tmp_path / "new").mkdir()
    assert make_folder(tmp_path / "new", fresh=True)


TWELVE = ("x=choice(1,2,3)", "y=choice(1,2)", "hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.seed=0")


@pytest.mark.slow
def test_a_search_trains_no_configuration_twice(sweeping: Sweeping):
    """TPE proposes the same point of a small space again and again."""
    code, out, err = sweeping(*TWELVE, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2")
    assert code == 0, err
    assert len({tuple(t.overrides) for t in sweeping.trials}) == 6 == len(sweeping.executions)
    code, out, err = sweeping(*TWELVE, "hydra.sweeper.n_trials=9", "hydra.sweeper.n_jobs=2")
    assert code == 0, err
    assert "no more than 6 of 9 trials" in out and len(sweeping.executions) == 6
    values = {tuple(t.params.values()): t.values for t in study_of(sweeping).trials if t.state.name == "COMPLETE"}
    assert len(values) == 6 and values[(3, 2)] == [0.0]


@pytest.mark.slow
def test_what_is_written_otherwise_is_the_same_configuration(sweeping: Sweeping):
    points = """+hydra.sweeper.points={a: ["x=3"], b: ["x=1", "x=3"]}"""
    options = [points, "y=choice(1,2)", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=3"]
    code, out, err = sweeping(*options)
    assert code == 0, err
    assert "no more than 2 of 3 trials" in out and len(sweeping.executions) == 2


@pytest.mark.slow
def test_confirmations_are_of_different_configurations(sweeping: Sweeping):
    """The two best of these differ by their seed, which a confirmation replaces."""
    code, _, err = sweeping("x=3,1", "seed=1,2", "hydra.sweeper.confirm=2", "hydra.sweeper.confirm_seeds=[10,20]")
    assert code == 0, err
    confirmed = [t for t in sweeping.trials if t.confirms]
    assert sorted(t.params["x"] for t in confirmed) == ["1", "3"]
    assert len(sweeping.executions) == 4 + 4


def test_a_finished_grid_takes_one_more_seed(sweeping: Sweeping):
    assert sweeping("seed=31,32", "x=1")[0] == 0
    code, _, err = sweeping("seed=30,31,32,33", "x=1")
    assert code == 0, err
    assert sorted(line.split("seed=")[1] for line in sweeping.executions) == ["30", "31", "32", "33"]
    assert [t.plan for t in sweeping.trials] == [1, 2, 0, 3]
    assert {t.params["seed"]: t.state.name for t in study_of(sweeping).trials} == dict.fromkeys(
        ["30", "31", "32", "33"], "COMPLETE"
    )
    aside = [path.name for path in (sweeping.folder / "out").glob("study.db.*")]
    assert len(aside) == 1 and aside[0].startswith("study.db.old-")  # nothing was wrong with it
    assert sweeping("seed=30,31,32,33", "x=1")[0] == 0
    assert len(sweeping.executions) == 4


@pytest.mark.slow
def test_a_grid_takes_another_parameter_and_gives_up_a_value(sweeping: Sweeping):
    assert sweeping("seed=31,32", "x=1")[0] == 0
    code, out, err = sweeping("seed=31,33", "x=1,3")
    assert code == 0, err
    assert "1 earlier trials are not in this grid any more" in out
    assert len(sweeping.executions) == 2 + 3 and sum(t.state == "complete" for t in sweeping.trials) == 5


@pytest.mark.slow
def test_values_that_are_equal_are_one_point_and_said(sweeping: Sweeping):
    code, out, err = sweeping("x=1,1.0,2,2")
    assert code == 0, err
    assert [t.overrides for t in sweeping.trials] == [["x=1"], ["x=2"]]
    assert "x: 1.0, 2 are there more than once" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["x=tag(log,range(1,100))"], "only an interval is searched on a logarithmic scale: x=tag(log,interval(a,b))"),
        (["x=tag(linear,interval(1,9))"], "tag(linear, ...) has no meaning"),
        (["mode=glob(*)"], "mode=glob(*): fits none of the options of mode"),
        (["x=tag(log,interval(0,9))"], "x=tag(log,interval(0,9)): "),
        (["x=interval(1,9)", "hydra.sweeper.warm_start=nowhere"], "hydra.sweeper.warm_start=nowhere: no sweep"),
    ],
)
def test_a_space_that_makes_no_sense_is_one_line_and_writes_nothing(sweeping: Sweeping, options: list, words: str):
    code, _, err = sweeping(*options, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2")
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1
    assert not (sweeping.folder / "out").exists()


@pytest.mark.slow
def test_a_search_with_all_that_is_known_already_goes_on_as_it_began(sweeping: Sweeping):
    first = ("x=interval(-5.0,5.0)", "y=2", "hydra/sweeper/sampler=random", "hydra.sweeper.n_jobs=2")
    assert sweeping(*first, "hydra.sweeper.n_trials=8", "hydra.sweep.dir=first")[0] == 0
    known = ("hydra.sweeper.transfer=first", "hydra.sweeper.warm_start=[first]", "hydra.sweeper.per_second=true",
             "+hydra.sweeper.prior={x: 'normal(3,0.5)'}")  # fmt: skip
    second = ("x=interval(-5.0,5.0)", "y=choice(2,3)", "hydra/sweeper/sampler=tpe", *known)
    code, out, err = sweeping(*second, "hydra.sweeper.n_trials=11")
    assert code == 0, err
    assert "hydra.sweeper.transfer: x between " in out and "hydra.sweeper.warm_start=first: y=2 there" in out
    best = sorted(Ledger(sweeping.folder / "first").trials(), key=lambda t: -(t.value or 0))[:3]
    low, high = min(t.params["x"] for t in best) - 1, max(t.params["x"] for t in best) + 1
    assert all(max(low, -5) <= t.params["x"] <= min(high, 5) for t in sweeping.trials)
    assert len(study_of(sweeping).trials) == 8 + 11
    code, out, err = sweeping(*second, "hydra.sweeper.n_trials=12")
    assert code == 0 and sweeping.states == {"complete": 12}, err


@pytest.mark.slow
def test_a_sweep_warms_the_sampler_of_another_space(sweeping: Sweeping):
    """Trials with a choice that is not there any more are left out; a wider range and more choices take the rest."""
    first = ("x=interval(1.0,2.0)", "y=choice(1,2,3)", "seed=choice(0,1)", "hydra/sweeper/sampler=random")
    assert sweeping(*first, "hydra.sweeper.n_trials=6", "hydra.sweep.dir=first", "hydra.sweeper.n_jobs=2")[0] == 0
    other = ("x=interval(-5.0,1.5)", "y=choice(1,3,4)", "hydra/sweeper/sampler=tpe", "hydra.sweeper.n_trials=2")
    code, out, err = sweeping(*other, "hydra.sweeper.warm_start=first")
    assert code == 0, err
    kept = sum(trial.params["y"] != 2 for trial in Ledger(sweeping.folder / "first").trials())
    assert len(study_of(sweeping).trials) == kept + 2 and 0 < kept < 6
    assert f"{6 - kept} of 6 trials do not fit into this space and are left out" in out
    assert "seed is not varied here" in out
    code, _, err = sweeping(*other, "hydra.sweeper.warm_start=first", "hydra.sweeper.direction=minimize")
    assert code == 2 and "it was to maximize, this sweep is to minimize" in err


def test_what_somebody_removes_of_a_running_trial_is_written_down_again(sweeping: Sweeping):
    process = sweeping.start("x=1,2", "sabotage=0:wait")
    wait_for(lambda: (sweeping.folder / "out/ledger/0000/unit_0/started.json").exists())
    shutil.rmtree(sweeping.folder / "out/ledger/0000")
    wait_for(lambda: (sweeping.folder / "out/ledger/0000/trial.json").exists())
    (sweeping.folder / "go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "ledger/0000: was removed while it runs" in out
    assert [t.values for t in sweeping.trials] == [[-4.0], [-1.0]] and len(sweeping.executions) == 2


@pytest.mark.slow
def test_a_sweep_that_is_renamed_while_it_runs_ends_in_one_line_and_goes_on_there(sweeping: Sweeping):
    process = sweeping.start("x=1,2", "sabotage=1:wait")
    wait_for(lambda: (sweeping.folder / "out/ledger/0000/unit_0/outcome.json").exists())
    wait_for(lambda: (sweeping.folder / "out/ledger/0001/unit_0/started.json").exists())
    (sweeping.folder / "out").rename(sweeping.folder / "mine")
    time.sleep(1)
    (sweeping.folder / "go").touch()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "was renamed or removed while its sweep ran" in err
    again = [f"hydra.sweep.dir={sweeping.folder / 'mine'}", "x=1,2", "sabotage=1:wait"]
    code, _, err = sweeping(*again)
    assert code == 0, err
    trials = Ledger(sweeping.folder / "mine").trials()
    assert [t.values for t in trials] == [[-4.0], [-1.0]]
    assert sum(line.startswith("0000 ") for line in sweeping.executions) == 1


@pytest.mark.slow
def test_records_that_were_edited_by_hand_cost_only_themselves(sweeping: Sweeping):
    sweeping("x=1,2,3")
    ledger = sweeping.folder / "out/ledger"
    (ledger / "0000/state.json").write_text("null")
    (ledger / "0001/trial.json").write_text("[]")
    (ledger / "0002/unit_0/outcome.json").write_text("{}")
    (sweeping.folder / "out/control.json").write_text('"x"')
    code, out, err = sweeping("x=1,2,3")
    assert code == 0 and "Traceback" not in out + err, err
    for name in ("0000/state.json", "0001/trial.json", "control.json"):
        assert f"{name}: its content is" in out
    assert [(t.number, t.values) for t in sweeping.trials] == [(0, [-4.0]), (2, [0.0]), (3, [-1.0])]
    assert len(sweeping.executions) == 4  # the second point alone ran again
    (sweeping.folder / "out/study.json").write_text("[1]")
    code, _, err = sweeping("x=1,2,3")
    assert code == 2 and "study.json: its content is [1], not an object; if what is in ledger/ is right, remove" in err


def test_code_in_a_folder_that_an_option_file_chose_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RECYCLELORA_SNAPSHOT", raising=False)
    monkeypatch.setattr("recyclelora.sweep.folder.place_chosen_by", lambda: None)
    own_place(tmp_path)
    monkeypatch.setattr("recyclelora.sweep.folder.place_chosen_by", lambda: Path("theirs.yaml"))
    with pytest.raises(UserError, match=r"has code of its own in snapshot\.zip, and theirs\.yaml chose this folder"):
        own_place(tmp_path)
    with monkeypatch.context() as inside:
        inside.setenv("RECYCLELORA_SNAPSHOT", str(tmp_path / "snapshot.zip"))  # that this very sweep has just made
        own_place(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    snapshot.note_own(tmp_path)
    own_place(tmp_path)
