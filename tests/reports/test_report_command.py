"""``python report.py`` as a user types it, on a real small grid."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from recyclelora.config.compose import home
from recyclelora.reports.comparison import compare
from recyclelora.reports.records import read_runs
from recyclelora.reports.writing import main_tables, markdown, run_paths

GRID = ["adapter=frozen,lora", "seed=0,1", "data=streets", "data.sources.0.subset=4", "data.source_val.subset=2",
        "trainer.num_figures=1",
        "data.targets=[{dataset: streets, split: night, name: night, subset: 2},"
        "{dataset: streets, split: fog, name: fog, subset: 2}]"]  # fmt: skip


def run(script: str, folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(home() / script), *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Two adapters, two seeds, trained for four steps by ``train.py -m``."""
    folder = tmp_path_factory.mktemp("grid")
    places = [f"output_dir={folder / 'outputs'}", f"cache={folder / 'cache'}"]
    plain = [o for o in TINY if not o.startswith("adapter.")]
    done = run("train.py", folder, "-m", *places, *plain, *GRID)
    assert done.returncode == 0, done.stderr
    (sweep,) = (folder / "outputs/sweeps").glob("[!.]*")
    return sweep


@pytest.mark.slow
def test_a_real_grid(grid: Path):
    done = run("report.py", grid.parents[2], f"sweep={grid}", "resamples=200")
    assert done.returncode == 0, done.stderr
    assert "adapter=frozen" in done.stdout and "trials: 4 complete" in done.stdout
    assert f"written: {grid.relative_to(grid.parents[2])}/report/report.html" in done.stdout
    assert "next:" in done.stdout and "recyclelora predict run=" in done.stdout
    with (grid / "report/table.csv").open() as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"adapter=frozen", "adapter=lora"}
    assert rows["adapter=lora"]["bootstrap_over"] == "images" and rows["adapter=lora"]["common_seeds"] == "0 1"
    text = (grid / "report/report.html").read_text()
    assert 'data-set="night" data-group="adapter=lora" data-view="prediction"' in text
    assert (grid / "report/table.md").read_text().count("| adapter=lora |") == 5


@pytest.mark.slow
def test_runs_by_pattern_another_reference_and_checkpoint(grid: Path):
    c = compare(read_runs(run_paths(f"{grid}/trial_*")), "best_source", "lora", 50)
    text = markdown(c, main_tables(c), 20)
    assert "minus that of adapter=lora" in text and "checkpoint best_source" in text and "bootstrap over images" in text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["sweep=nowhere"], "report: sweep=nowhere: no such folder"),
        (["runs=nowhere/*"], "report: runs=nowhere/*: no run directory"),
        ([], "give either sweep=<sweep dir> or runs=[<run dir>,...]"),
        (["sweep=a", "selection=best"], "must be one of last, best_source, best_target"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, asked: list[str], words: str):
    done = run("report.py", tmp_path, *asked)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not any(tmp_path.iterdir())
