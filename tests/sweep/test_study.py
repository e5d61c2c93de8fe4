"""Optuna's study agrees with the ledger, whatever became of its file."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution, distribution_to_json

from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger
from recyclelora.sweep.study import open_study, storage_url

TEXT = distribution_to_json(FloatDistribution(0.0, 9.0))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Five ended trials of x -> x^2, the last of which failed."""
    for number in range(5):
        trial = Ledger(tmp_path).add(number, {"x": number + 0.5}, [], [[]], {"x": TEXT})
        trial.end(COMPLETE, values=[(number + 0.5) ** 2]) if number < 4 else trial.end(FAILED, reason="nan")
    return tmp_path


def opened(sweep: Path) -> tuple[list[tuple[float, str, list[float] | None]], list[str]]:
    study, remarks = open_study(storage_url(None, sweep), "mine", ["maximize"], Ledger(sweep).trials(), [])
    return [(trial.params["x"], trial.state.name, trial.values) for trial in study.get_trials()], remarks


WANTED = [(n + 0.5, "COMPLETE", [(n + 0.5) ** 2]) for n in range(4)] + [(4.5, "FAIL", None)]


def test_it_is_made_from_the_ledger_and_then_left_alone(sweep: Path):
    assert opened(sweep) == (WANTED, ["the study was rebuilt from the ledger: 5 trials"])
    assert opened(sweep) == (WANTED, [])
    assert [path.name for path in sweep.glob("study.db*broken*")] == []


DAMAGE = {
    "a value": "UPDATE trial_values SET value = 7 WHERE trial_id = 2",
    "a parameter": "UPDATE trial_params SET param_value = 7 WHERE trial_id = 2",
    "a state": "UPDATE trials SET state = 'FAIL' WHERE trial_id = 2",
    "no state at all": "UPDATE trials SET state = 'GONE' WHERE trial_id = 2",
    "a distribution": "UPDATE trial_params SET distribution_json = 'x' WHERE trial_id = 2",
    "a trial": "DELETE FROM trials WHERE trial_id = 2",
    "the study": "DELETE FROM studies",
    "a table": "DROP TABLE trial_params",
}


@pytest.mark.parametrize("sql", DAMAGE.values(), ids=DAMAGE)
def test_it_is_rebuilt_when_it_tells_something_else(sweep: Path, sql: str):
    opened(sweep)
    with sqlite3.connect(sweep / "study.db") as connection:
        connection.execute(sql)
    connection.close()
    trials, remarks = opened(sweep)
    assert trials == WANTED
    assert remarks[-1] == "the study was rebuilt from the ledger: 5 trials"


def test_results_of_a_sweep_that_was_set_aside_are_forgotten(sweep: Path):
    opened(sweep)
    for number in (3, 4):
        shutil.rmtree(sweep / f"ledger/{number:04d}")
    trials, remarks = opened(sweep)
    assert trials == WANTED[:3] and remarks[-1] == "the study was rebuilt from the ledger: 3 trials"


def test_a_file_that_is_cut_off_is_kept_aside(sweep: Path):
    opened(sweep)
    path = sweep / "study.db"
    path.write_bytes(path.read_bytes()[:20_000])
    trials, remarks = opened(sweep)
    assert trials == WANTED
    assert len(list(sweep.glob("study.db.broken-*"))) == 1 and "is damaged" in remarks[0]


def test_a_trial_that_was_not_told_yet_is_told(sweep: Path):
    late = Ledger(sweep).add(5, {"x": 5.5}, [], [[]], {"x": TEXT})
    assert opened(sweep)[0] == [*WANTED, (5.5, "RUNNING", None)]
    late.end(COMPLETE, values=[30.25])
    assert opened(sweep) == ([*WANTED, (5.5, "COMPLETE", [30.25])], [])
