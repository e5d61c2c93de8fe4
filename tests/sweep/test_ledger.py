"""What the ledger keeps of a trial."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recyclelora.runs.unit import CONFIRM, Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.ledger import COMPLETE, Ledger, Trial
from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import read_record


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
    trial, said = added(tmp_path), {"attempt": 1, "status": "interrupted", "reason": None}
    (trial.unit_folder(0) / "outcome.json").write_text(json.dumps(said))
    assert trial.outcome(0) is None
    trial.attempts.append(Attempt(0, 1, "", ""))
    assert trial.outcome(0) == said
    trial.attempts.append(Attempt(0, 2, "", ""))
    assert trial.outcome(0) is None and trial.said(0) == said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("null", "its content is None, not an object"),
        ("[]", r"its content is \[\], not an object"),
        ('"x"', "its content is 'x', not an object"),
        ("{}", "number is missing"),
        ('{"number": "7"}', "number is '7', not a whole number"),
    ],
)
def test_a_trial_that_is_not_what_was_written_is_named_and_the_others_go_on(tmp_path: Path, text: str, words: str):
    added(tmp_path, 6)
    (added(tmp_path).folder / "trial.json").write_text(text)
    ledger = Ledger(tmp_path)
    assert [trial.number for trial in ledger.trials()] == [6]
    assert len(ledger.remarks) == 1 and re.search(rf"ledger/0007/trial\.json: {words}.*left out", ledger.remarks[0])
    ledger.set_unreadable_aside()
    assert [trial.number for trial in ledger.trials()] == [6] and ledger.remarks == []
    assert len(list((tmp_path / "ledger").glob("0007.unreadable-*/trial.json"))) == 1


STATES = ["null", "[]", "{}", '"x"', '{"state": "done"}']


@pytest.mark.parametrize("text", [*STATES, "several values", "no values", "a unit too many", "a time", "truncated"])
def test_what_the_jobs_said_counts_where_the_state_is_not_what_was_written(tmp_path: Path, text: str):
    trial = added(tmp_path)
    trial.attempts = [Attempt(0, 1, "a", ""), Attempt(0, 2, "b", "")]
    trial.end(COMPLETE, values=[0.5])
    path = trial.folder / "state.json"
    edits = {
        "several values": {"values": "0.5, 0.7"}, "no values": {"values": []}, "a time": {"finished": "yesterday"},
        "a unit too many": {"attempts": [{"unit": 4, "attempt": 1, "job": "", "submitted": ""}]},
    }  # fmt: skip
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | edits[text]) if text in edits else text if text in STATES else '{"state": "co')
    Unit(trial.unit_folder(0)).outcome("complete", attempt=2, seconds=1.0, values=[0.5])
    ledger = Ledger(tmp_path)
    (read,) = ledger.trials()
    assert (read.state, [a.attempt for a in read.attempts]) == ("running", [1, 2])
    assert (read.outcome(0) or {}).get("values") == [0.5]
    assert len(ledger.remarks) == 1 and "0007/state.json: " in ledger.remarks[0]


def test_a_unit_that_is_added_while_a_trial_is_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Races and confirmations add units; the driver writes them down before their attempts."""
    driven = added(tmp_path)

    def read_meanwhile(path: Path, kind: type) -> object:
        record = read_record(path, kind)
        driven.units.append([])
        driven.save()
        driven.attempts.append(Attempt(len(driven.units) - 1, 1, "a", ""))
        driven.save_state()
        return record

    driven.save_state()
    monkeypatch.setattr("recyclelora.sweep.ledger.read_record", read_meanwhile)
    ledger = Ledger(tmp_path)
    assert len(ledger.trials()) == 1 and ledger.remarks == []


def test_a_garbled_outcome_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trial = added(tmp_path)
    trial.attempts = [Attempt(0, 1, "a", "")]
    for text in ("null", "[]", '{"attempt": "1", "status": "complete"}', '{"attempt": 1, "status": "done"}'):
        (trial.unit_folder(0) / "outcome.json").write_text(text)
        (trial.unit_folder(0) / "started.json").write_text(text)
        (trial.unit_folder(0) / "stop.json").write_text(text)
        assert trial.garbled(0) and trial.outcome(0) is None and trial.job_of(0) == "a"
        assert Unit(trial.unit_folder(0)).stop_reason() is None and Unit(trial.unit_folder(0)).run_dir is None
    assert "outcome.json: its content is None" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["a file", "a dangling link"])
def test_a_ledger_that_is_no_folder_is_one_line(tmp_path: Path, how: str):
    (tmp_path / "ledger").touch() if how == "a file" else (tmp_path / "ledger").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="ledger: must be a folder"):
        Ledger(tmp_path).trials()
