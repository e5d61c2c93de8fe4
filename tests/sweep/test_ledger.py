"""What the ledger keeps of a trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recyclelora.errors import UserError
from recyclelora.sweep.ledger import COMPLETE, Attempt, Ledger, Trial
from recyclelora.sweep.unit import CONFIRM


def added(tmp_path: Path, number: int = 7, **more: str) -> Trial:
    overrides = ["optimizer.lr=0.00012345678", "adapter.scale=-3.7040876563363696", "adapter.main.rank=8", "x=0.125"]
    return Ledger(tmp_path).add(number, {"adapter.main.rank": 8}, overrides, [overrides], {}, **more)


def test_what_is_read_is_what_was_written(tmp_path: Path):
    trial = added(tmp_path, plan=3, retry_of=2)
    trial.attempts.append(Attempt(0, 1, "job", "2026-01-01T00:00:00+0000", node_fault=True))
    trial.end(COMPLETE, values=[0.1, 2.0])
    assert Ledger(tmp_path).trials() == [trial]
    assert trial.value == 0.1 and trial.ended


def test_names_of_run_folders_and_the_order_of_trials(tmp_path: Path):
    added(tmp_path, 3, kind=CONFIRM), added(tmp_path, 12), added(tmp_path, 3)
    trials = Ledger(tmp_path).trials()
    assert [trial.run_prefix for trial in trials] == ["trial_0003", "trial_0012", "confirm_0003"]
    assert [trial.confirms for trial in trials] == [False, False, True]


def test_people_see_short_numbers(tmp_path: Path):
    assert added(tmp_path).what == "optimizer.lr=0.0001235, adapter.scale=-3.704, adapter.main.rank=8, x=0.125"


def test_a_trial_that_varies_nothing_has_a_dash(tmp_path: Path):
    assert Ledger(tmp_path).add(0, {}, [], [[]], {}).what == "-"


def test_an_outcome_counts_for_its_own_attempt(tmp_path: Path):
    trial = added(tmp_path)
    (trial.unit_folder(0) / "outcome.json").write_text(json.dumps({"attempt": 1, "status": "interrupted"}))
    assert trial.outcome(0) is None
    trial.attempts.append(Attempt(0, 1, "", ""))
    assert trial.outcome(0) == {"attempt": 1, "status": "interrupted"}
    trial.attempts.append(Attempt(0, 2, "", ""))
    assert trial.outcome(0) is None and trial.said(0) == {"attempt": 1, "status": "interrupted"}


def test_a_file_of_another_kind_is_named(tmp_path: Path):
    (added(tmp_path).folder / "trial.json").write_text('{"number": 7}')
    with pytest.raises(UserError, match=r"0007: not a trial of this version's ledger: 'params'"):
        Ledger(tmp_path).trials()
