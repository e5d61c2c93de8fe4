"""A tracker from another package: the example, installed as a package manager would."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from installing import install_project

from recyclelora.config.compose import ConfigError, home, validate
from recyclelora.config.training import TrackingConfig
from recyclelora.runs.metrics_log import MetricsLog, read_points

EXAMPLE = home() / "examples/csv_tracker"


def run(site: Path | None, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site or folder), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
def test_the_example_follows_a_training_and_sends_the_rest_later(tmp_path: Path, gta2city: Path):
    site = install_project(EXAMPLE, tmp_path / "site")
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    done = run(site, tmp_path, str(home() / "train.py"), *TINY, *places, "tracking.trackers=[csv]")
    assert done.returncode == 0, done.stderr
    (run_dir,) = (path for path in (tmp_path / "outputs/runs").iterdir() if path.is_dir())
    MetricsLog(run_dir / "metrics.jsonl").append(1000, {"loss_ce": 0.5})
    for _ in range(2):
        later = run(site, tmp_path, "-m", "recyclelora", "track", "sync", str(run_dir), "--tracker", "csv")
        assert later.stdout == f"{run_dir}: sent to csv\n", later.stderr
    with (run_dir.parent / "points.csv").open(newline="") as file:
        told = [(int(row["step"]), row["name"]) for row in csv.DictReader(file)]
    points = read_points(run_dir / "metrics.jsonl")
    assert sorted(told) == sorted((p["step"], name) for p in points for name in p if name not in ("step", "time"))
    assert len((EXAMPLE / "src/csv_tracker/__init__.py").read_text().splitlines()) <= 60
    unknown = run(None, tmp_path, "-m", "recyclelora", "track", "sync", str(run_dir), "--tracker", "csv")
    assert unknown.returncode == 2 and "invalid choice: 'csv' (choose from" in unknown.stderr


def test_a_tracker_that_is_not_installed_is_refused_for_new_runs_only():
    tracking = TrackingConfig(trackers=["csv"])
    with pytest.raises(ConfigError, match="no installed package brings csv"):
        validate(tracking)
    validate(tracking, stored=True)
