"""The notebooks of ``examples/`` run from top to bottom, and what is committed of them was run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recyclelora.config.compose import home

NOTEBOOKS = sorted((home() / "examples").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_and_say_nothing_of_a_machine(path: Path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not any(output["output_type"] == "error" for output in outputs)
    assert path.stat().st_size < 200_000
    assert "/root" not in path.read_text() and "/home" not in path.read_text() and "/tmp" not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path):
    script = "\n\n".join("".join(cell["source"]) for cell in code_cells(path))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
