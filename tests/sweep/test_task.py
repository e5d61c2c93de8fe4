"""How a unit's end is written down, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recyclelora.runs.unit import CANCELLED, Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.execution import Work
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.task import recorded
from recyclelora.system.errors import Interrupted, Pruned, UserError


@pytest.fixture
def work(tmp_path: Path) -> Work:
    trial = Ledger(tmp_path).add(0, {}, ["x=1"], [["x=1"]], {})
    trial.attempts.append(Attempt(0, 1, "job", ""))
    trial.save_state()
    return Work(0, trial.unit_folder(0), 1, ["x=1"])


def cut_off() -> float:
    """A signal's exception inside code whose clean-up then fails."""
    try:
        raise Interrupted("stopped by signal 15", 143)
    finally:
        None.flags  # noqa: B018


def failing(error: Exception):
    def call() -> float:
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "status", "reason"),
    [
        (lambda: 0.5, "complete", None),
        (lambda: "fine", "failed", "the objective is 'fine', not a finite number"),
        (failing(ValueError("no data")), "failed", "ValueError: no data"),
        (failing(UserError("data.root: no such folder")), "failed", "data.root: no such folder"),
        (failing(Pruned("pruned after step 3")), "pruned", "pruned after step 3"),
        (failing(Interrupted("stopped by signal 15", 143)), "interrupted", "stopped by signal 15"),
        (cut_off, "interrupted", "stopped by signal 15"),
    ],
)
def test_every_end_has_its_status_and_reason(work: Work, call, status: str, reason: str | None):
    assert recorded(work, "job", call, None)[0] == status
    written = json.loads((work.folder / "outcome.json").read_text())
    assert (written["attempt"], written["status"], written["reason"]) == (1, status, reason)


def test_an_interrupted_unit_that_comes_back_has_no_outcome(work: Work):
    assert recorded(work, "job", cut_off, None, lambda: True)[0] == "resumes"
    assert not (work.folder / "outcome.json").exists()


def test_an_interrupted_unit_that_nobody_wants_is_failed(work: Work):
    Unit(work.folder).ask_to_stop(CANCELLED)
    assert recorded(work, "job", cut_off, None, lambda: True)[0] == "failed"
    assert json.loads((work.folder / "outcome.json").read_text())["reason"] == CANCELLED


def test_an_attempt_that_nobody_waits_for_does_not_run(work: Work):
    late = Work(0, work.folder, 2, ["x=1"])
    assert recorded(late, "job", failing(ValueError("ran")), None) == ("superseded", None)
