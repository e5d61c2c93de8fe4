"""Results that are taken over from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from recyclelora.runs.reuse import take_over
from recyclelora.system.storage import read_json, write_json

SIGN, OTHER = "0123456789abcdef", "fedcba9876543210"


def finished(path: Path, signature: str = SIGN) -> Path:
    path.mkdir(parents=True)
    write_json(path / "result.json", {"signature": signature, "objective": 0.5})
    for name in (".lock", "mlflow.json", "metrics.jsonl"):
        (path / name).write_text("{}")
    return path


@pytest.mark.parametrize("place", [f"sweeps/first/trial_0003-{SIGN}", f"runs/lora-vit-streets-{SIGN}"])
def test_a_finished_run_is_copied_without_what_belongs_to_its_place(tmp_path: Path, place: str):
    origin = finished(tmp_path / place)
    wanted = tmp_path / f"sweeps/second/trial_0000-{SIGN}"
    assert take_over(wanted, tmp_path, SIGN) == origin
    assert sorted(path.name for path in wanted.iterdir()) == ["metrics.jsonl", "result.json"]
    assert read_json(wanted / "result.json")["objective"] == 0.5
    assert take_over(wanted, tmp_path, SIGN) is None


def test_repeats_are_found_by_their_seed(tmp_path: Path):
    finished(tmp_path / f"sweeps/first/confirm_0003-{SIGN}/seed_1001", OTHER)
    wanted = tmp_path / f"sweeps/second/confirm_0007-{SIGN}"
    assert take_over(wanted / "seed_1002", tmp_path, OTHER) is None
    assert take_over(wanted / "seed_1001", tmp_path, OTHER) is not None
    assert not (wanted / "seed_1002").exists()


def test_unfinished_broken_and_other_runs_are_left(tmp_path: Path):
    (tmp_path / f"sweeps/first/trial_0000-{SIGN}").mkdir(parents=True)
    finished(tmp_path / f"sweeps/first/trial_0001-{SIGN}", OTHER)
    broken = finished(tmp_path / f"sweeps/first/trial_0002-{SIGN}")
    (broken / "result.json").write_text("null")
    assert take_over(tmp_path / f"sweeps/second/trial_0000-{SIGN}", tmp_path, SIGN) is None
