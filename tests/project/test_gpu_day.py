"""The command for one GPU, as far as a CPU can try it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recyclelora.config.compose import home

RUN = home() / "benchmarks/gpu/run.sh"


def gpu_day(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(
        ["bash", str(RUN), "--dry", *arguments, str(folder)], env=environment, capture_output=True, text=True
    )


def test_a_part_that_cannot_end_does_not_stop_the_next_and_the_time_is_watched(tmp_path: Path):
    """With half a second for everything no part is started, and each says so."""
    done = gpu_day(tmp_path, "--budget", "0.5")
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert done.returncode == 1 and len(parts) == 11
    assert {part["status"] for part in parts.values()} == {"left out: the time was spent"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_dry_mode_passes(tmp_path: Path):
    done = gpu_day(tmp_path)
    parts = json.loads((tmp_path / "results.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "done"), done.stdout
    assert all(parts["resume"]["figures"]["resumed_is_equal"].values())
