"""The command on tiny runs: one alone, several side by side, and those with nothing to see."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, save_rgb
from PIL import Image

from recyclelora.commands.analyze import analyze
from recyclelora.config.commands import AnalyzeConfig
from recyclelora.config.compose import home
from recyclelora.system.errors import UserError
from recyclelora.training.run import Run

PLAIN = [option for option in TINY if not option.startswith("adapter.")]
OPTIONS = {
    "recyclelora": TINY,
    "again": [*TINY, "seed=1"],
    "lora": [*PLAIN, "adapter=lora", "adapter.main.rank=4"],
    "full": [*PLAIN, "adapter=full"],
    "frozen": [*PLAIN, "adapter=frozen"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """One trained run for each set of options."""
    from conftest import compose_config, make_cityscapes, make_gta

    folder = tmp_path_factory.mktemp("analysed")
    make_cityscapes(make_gta(folder / "data"))
    found = {}
    for name, options in OPTIONS.items():
        run = Run.identify(compose_config(folder, *options), None)
        run.execute()
        found[name] = run.directory.path
    return found


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_run(runs):
    path = runs["recyclelora"]
    (path / "analysis").mkdir()
    (path / "analysis/left_over.png").write_bytes(b"")
    analyze(AnalyzeConfig(run=str(path)))
    folder = path / "analysis"
    assert {p.stem for p in folder.glob("*.csv")} == {
        "angles", "column_norms", "cosines", "features", "rank", "shares", "similarity", "size", "spectra",
    }  # fmt: skip
    assert {p.stem for p in folder.glob("*.png")} == {
        "column_norms", "cosines_a", "cosines_b", "feature_change", "features_cityscapes", "features_source_val",
        "main_sub_similarity", "principal_angles", "rank_efficiency", "relative_size", "similarity_to_start",
        "spectra", "update_shares",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["step"], summary["seed"], summary["checkpoint"]) == (4, 0, "last")
    assert summary["metrics"]["rank_efficiency/main/init"] == pytest.approx(1.0)
    assert summary["metrics"]["relative_norm/all/update"] > 0
    stored = [float(row["value"]) for row in read(folder / "size.csv") if row["quantity"] == "relative_norm"]
    assert sum(stored) / len(stored) == pytest.approx(summary["metrics"]["relative_norm/all/update"])


def test_own_images_another_folder_and_no_figures(runs, tmp_path: Path):
    save_rgb(tmp_path / "in/a.png", np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8))
    output = tmp_path / "out"
    options = {"images": str(tmp_path / "in"), "subspaces": False, "figures": False, "output": str(output)}
    analyze(AnalyzeConfig(run=str(runs["lora"]), **options))
    assert not (runs["lora"] / "analysis").exists()
    tables = ("cosines", "features", "rank", "similarity", "size", "spectra")
    assert {p.name for p in output.iterdir()} == {"summary.json", *(f"{name}.csv" for name in tables)}
    assert {row["branch"] for row in read(output / "features.csv")} == {"a"}


def test_full_fine_tuning_is_measured_by_its_weights(runs):
    analyze(AnalyzeConfig(run=str(runs["full"]), features=False, figures=False))
    rows = read(runs["full"] / "analysis/rank.csv")
    assert {(row["branch"], row["stage"]) for row in rows} == {("all", "update")}


@pytest.mark.slow
def test_several_runs_side_by_side(runs):
    names = ("recyclelora", "again", "lora", "full", "frozen")
    analyze(AnalyzeConfig(run=[str(runs[name]) for name in names]))
    (folder,) = (runs["lora"].parents[1] / "analysis").iterdir()
    assert folder.name.startswith("recyclelora-lora-full-")
    assert {p.stem for p in folder.glob("*.png")} == {
        "effective_rank", "rank_efficiency", "relative_size", "similarity_between_runs", "spectra", "update_shares",
    }  # fmt: skip
    labels = {row["run"] for row in read(folder / "rank.csv")}
    assert labels == {
        "adapter=recyclelora, seed 0", "adapter=recyclelora, seed 1", "adapter=lora, seed 0", "adapter=full, seed 0",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["configurations"]["adapter=recyclelora"]["seeds"] == [0, 1]
    alike = summary["grassmann_between_runs"]
    assert alike["adapter=recyclelora, seed 0 | adapter=recyclelora, seed 1"]["a"] < 1
    for picture in folder.glob("*.png"):
        assert np.asarray(Image.open(picture)).std() > 1


@pytest.mark.slow
def test_any_run_is_seen_in_the_directions_of_its_data(runs, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    options = {"data_subspaces": True, "features": False, "output": str(tmp_path)}
    analyze(AnalyzeConfig(run=str(runs["lora"]), **options))
    rows = read(tmp_path / "data_shares.csv")
    ends = {row["quantity"].removesuffix("_top_share") for row in rows if row["quantity"].endswith("_top_share")}
    assert ends == {"moments", "gradient_left", "gradient_right"}
    assert {row["layer"] for row in rows} == {row["layer"] for row in read(tmp_path / "size.csv")}
    assert np.asarray(Image.open(tmp_path / "data_shares.png")).std() > 1
    assert json.loads((tmp_path / "summary.json").read_text())["metrics"]["moments_top_share/all/update"] > 0
    monkeypatch.setattr(
        "recyclelora.training.calibration.build_datasets", lambda *_: (_ for _ in ()).throw(UserError("gone"))
    )
    analyze(AnalyzeConfig(run=str(runs["lora"]), **options, figures=False))
    assert "warning: no shares in the directions of the data: gone" in capsys.readouterr().out


def test_a_frozen_backbone_has_nothing_to_analyse(runs):
    with pytest.raises(UserError, match="adapter=frozen changes nothing in the backbone"):
        analyze(AnalyzeConfig(run=str(runs["frozen"])))
    with pytest.raises(UserError, match="none of these runs"):
        analyze(AnalyzeConfig(run=[str(runs["frozen"])] * 2))


def test_data_that_is_not_here_is_a_warning(runs, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "recyclelora.reports.analysis.runs.open_all", lambda *_: (_ for _ in ()).throw(UserError("gone"))
    )
    analyze(AnalyzeConfig(run=str(runs["lora"]), subspaces=False, figures=False))
    assert "warning: no features of source_val: gone" in capsys.readouterr().out
    assert (runs["lora"] / "analysis/rank.csv").exists()
    assert not (runs["lora"] / "analysis/features.csv").exists()


def command(*overrides: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(home() / "analyze.py"), *overrides]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_the_command_and_its_mistakes(runs, tmp_path: Path):
    few = ["features=false", "figures=false", "subspaces=false", f"output={tmp_path / 'out'}"]
    done = command(f"run=[{runs['lora']},{runs['recyclelora']}]", *few)
    assert done.returncode == 0, done.stderr
    assert "adapter=lora" in done.stdout and "adapter=recyclelora" in done.stdout
    assert (tmp_path / "out/rank.csv").exists()
    for overrides, words in (
        (["run=3"], "run=3: must be a run directory"),
        (["run=x", "checkpoint=lst"], "did you mean last?"),
        (["run=x"], "x: not a run directory"),
        ([], "run"),
    ):
        wrong = command(*overrides)
        assert wrong.returncode == 2 and words in wrong.stderr and "Traceback" not in wrong.stderr


def test_what_is_no_run_is_refused():
    with pytest.raises(UserError, match="not a run directory"):
        analyze(AnalyzeConfig(run="/nowhere"))
