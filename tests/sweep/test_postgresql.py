"""Several drivers of one study, on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from postgresql import Server, database, postgresql  # noqa: F401
from sweeping import Sweeping
from waiting import wait_for

TPE = ("x=interval(-5.0,5.0)", "y=choice(1,2,3)", "hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.seed=0",
       "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=2", "pause=0.3", "steps=2")  # fmt: skip


@pytest.fixture
def storage(database, monkeypatch: pytest.MonkeyPatch) -> str:
    port, password = database
    monkeypatch.setenv("PGPASSWORD", password.read_text().strip())
    return f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"


@pytest.mark.slow
def test_two_drivers_share_a_study_to_exactly_n_trials(tmp_path: Path, storage: str):
    sweeping = Sweeping(tmp_path)
    command = [*TPE, f"hydra.sweeper.storage={storage}"]
    first = sweeping.start(*command)
    wait_for(lambda: bool(sweeping.trials))
    code, _, err = sweeping(*command)
    assert code == 0, err
    assert first.wait(60) == 0
    assert sweeping.states == {"complete": 8}
    assert len({trial.driver for trial in sweeping.trials}) == 2
    assert set(Counter(line.split()[0] for line in sweeping.executions).values()) == {1}
    study = optuna.load_study(study_name="out", storage=storage)
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 8}
    secret = os.environ["PGPASSWORD"].encode()
    assert not [p for p in tmp_path.glob("out/**/*") if p.is_file() and secret in p.read_bytes()]


@pytest.mark.slow
def test_a_drivers_successor_takes_over_its_trials_and_no_others(tmp_path: Path, storage: str):
    sweeping = Sweeping(tmp_path)
    command = [*TPE, f"hydra.sweeper.storage={storage}"]
    first, second = sweeping.start(*command), sweeping.start(*command)
    wait_for(lambda: len({t.driver for t in sweeping.trials if t.state == "running"}) == 2)
    first.kill()
    first.wait()
    assert second.wait(120) == 0
    code, _, err = sweeping(*command)
    assert code == 0, err
    assert sweeping.states == {"complete": 8}
    assert set(Counter(line.split()[0] for line in sweeping.executions).values()) == {1}


@pytest.mark.slow
def test_a_fresh_sweep_forgets_the_study_and_every_driver_is_seen_and_told(tmp_path: Path, storage: str):
    sweeping = Sweeping(tmp_path)
    command = [*TPE, f"hydra.sweeper.storage={storage}"]
    assert sweeping(*command)[0] == 0
    first = [trial.params for trial in sweeping.trials]
    waiting = "sabotage='0:wait 1:wait 2:wait 3:wait'"
    drivers = [sweeping.start("+fresh=true", waiting, *command)]
    wait_for(lambda: bool(sweeping.states.get("running")))
    drivers.append(sweeping.start(waiting, *command))
    out = tmp_path / "out"
    wait_for(lambda: len({trial.driver for trial in sweeping.trials if trial.state == "running"}) == 2)
    code, _, err = sweeping("+fresh=true", *command)
    assert code == 2 and f"{out}: in use by process" in err
    shell = [sys.executable, "-m", "recyclelora.sweep"]
    told = subprocess.run([*shell, "status", str(out)], capture_output=True, text=True, check=True).stdout
    assert all(f"process {driver.pid} on" in told for driver in drivers)
    subprocess.run([*shell, "extend", str(out), "10"], check=True)
    (tmp_path / "go").touch()
    assert [driver.wait(120) for driver in drivers] == [0, 0]
    assert sweeping.states == {"complete": 10}
    assert [trial.number for trial in sweeping.trials] == list(range(10))
    assert sweeping.trials[0].params == first[0]  # a seeded sampler that knows nothing yet
    study = optuna.load_study(study_name="out", storage=storage)
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 10}


@pytest.mark.slow
def test_a_restart_of_the_database_is_waited_for(tmp_path: Path, storage: str, postgresql: Server):
    """Three seconds without it, in which trials run, report and end; a median pruner asks after each report."""
    sweeping = Sweeping(tmp_path)
    busy = ["hydra/sweeper/pruner=median", "hydra.sweeper.n_trials=12", "steps=6", "pause=2"]
    driver = sweeping.start(*TPE, *busy, f"hydra.sweeper.storage={storage}")
    wait_for(lambda: sweeping.states.get("complete", 0) >= 2, 180)
    postgresql.stop()
    time.sleep(3)
    postgresql.start()
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, (out, err)
    assert "Traceback" not in out + err
    assert out.count("does not answer, and is waited for") == out.count("storage answers again") >= 1
    ended = {trial.number: (trial.state, trial.values) for trial in sweeping.trials}
    assert len(ended) == 12 and {state for state, _ in ended.values()} <= {"complete", "pruned"}
    assert all(len(trial.attempts) == 1 for trial in sweeping.trials)
    study = optuna.load_study(study_name="out", storage=storage)
    assert {t.number: t.state.name.lower() for t in study.trials} == {n: state for n, (state, _) in ended.items()}
    assert all(t.values == ended[t.number][1] for t in study.trials if t.state.name == "COMPLETE")


@pytest.mark.slow
def test_a_study_that_somebody_deletes_is_made_again(tmp_path: Path, storage: str):
    """As the dashboard's button does."""
    sweeping = Sweeping(tmp_path)
    driver = sweeping.start(*TPE, f"hydra.sweeper.storage={storage}", "sabotage='2:wait 3:wait'")
    wait_for(lambda: sweeping.states == {"complete": 2, "running": 2}, 180)
    optuna.delete_study(study_name="out", storage=storage)
    (tmp_path / "go").touch()
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0 and "Traceback" not in err, (out, err)
    assert out.count("is there again") == 1 and sweeping.states == {"complete": 8}
    study = optuna.load_study(study_name="out", storage=storage)
    assert [(t.params, t.values) for t in study.trials] == [(t.params, t.values) for t in sweeping.trials]


@pytest.mark.slow
def test_a_database_that_does_not_answer_is_one_line(tmp_path: Path):
    sweeping = Sweeping(tmp_path)
    code, _, err = sweeping(*TPE, "hydra.sweeper.storage=postgresql+psycopg://me:hunter22@127.0.0.1:1/none")
    assert code == 2 and "Traceback" not in err
    assert "127.0.0.1" in err and "hunter22" not in err
