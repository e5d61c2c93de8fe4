from __future__ import annotations

import sys
from pathlib import Path

from recyclelora.system.next_steps import as_typed_here, given, next_steps, typed_as, with_run


def test_a_command_is_shown_as_it_is_typed_here(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert typed_as("inspect-data", "data=a b") == "recyclelora inspect-data 'data=a b'"
    (tmp_path / "predict.py").touch()
    assert typed_as("predict", "run=runs/<run>", "input=<photos>") == "python predict.py run=runs/<run> input=<photos>"
    assert next_steps(("one", "a"), ("longer", "b")) == "next:\n  one     a\n  longer  b"


def test_a_recorded_command_is_shown_as_it_is_typed_here(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_typed_here("train.py -m 'a=b c'") == "recyclelora train -m 'a=b c'"
    assert as_typed_here("recyclelora-train seed=1") == "recyclelora-train seed=1"
    (tmp_path / "train.py").touch()
    assert as_typed_here("train.py") == "python train.py"


def test_what_was_given_about_the_data_is_kept(monkeypatch):
    arguments = ["x.py", "--config-dir", "conf", "data=mine", "+data.folder.coding.ids={7: road}", "num_workers=1",
                 "data/augment=small", "database=1"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    assert given("data") == [*arguments[1:5], "data/augment=small"]


def test_steps_with_a_run_name_it_and_what_its_photographs_need(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = with_run(tmp_path / "outputs/runs/a", "predict", "analyze", size=352)
    assert steps == [
        ("segment photos", "recyclelora predict run=outputs/runs/a input=<photos> size=352"),
        ("see what changed", "recyclelora analyze run=outputs/runs/a"),
    ]
