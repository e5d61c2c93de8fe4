"""What a dry run says about time."""

from __future__ import annotations

import json
from pathlib import Path

from recyclelora.sweep.dry_run import in_words

CONFIG = {"backbone": {"name": "b"}, "decoder": {"name": "d"}, "data": {"name": "x"}, "trainer": {"max_steps": 10}}


def finished(folder: Path, seconds: float, **about: object) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"steps": about.pop("steps", 10), "seconds": seconds}))
    (folder / "run.json").write_text(json.dumps({"backbone": "b", "decoder": "d", "data": "x"} | about))


def test_like_runs_tell_how_long_a_sweep_takes(tmp_path: Path):
    finished(tmp_path / "runs/a", 100)
    finished(tmp_path / "sweeps/s/trial_0000-1", 200)
    finished(tmp_path / "sweeps/s/trial_0001-1/seed_3", 600)
    finished(tmp_path / "runs/other_backbone", 9999, backbone="c")
    finished(tmp_path / "runs/other_length", 9999, steps=20)
    told = "30 runs of 3 min, the median of 3 like runs here"
    assert in_words(tmp_path, CONFIG, [30, 0], None, 1) == f"about 100 min: {told}"
    assert in_words(tmp_path, CONFIG, [30, 0], None, 4) == f"about 27 min, 4 at a time (100 min of runs): {told}"
    # the confirmation waits for the end of the search: 3 rounds, then 1
    assert in_words(tmp_path, CONFIG, [21, 9], None, 9) == f"about 13 min, 9 at a time (100 min of runs): {told}"
    assert in_words(tmp_path, CONFIG, [1], None, 8).startswith("about 3 min: 1 runs of 3 min")


def test_without_like_runs_the_limit_is_an_upper_bound(tmp_path: Path):
    assert in_words(tmp_path, CONFIG, [4], 90, 2) == "at most 6.0 h of runs: 4 runs within timeout_min=90"
    assert "not known here yet" in in_words(tmp_path, CONFIG, [4], None, 1)
