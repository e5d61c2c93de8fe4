"""The built wheel, away from the repository: commands, packaged options, the namespace of Hydra's plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import TINY, make_cityscapes, make_gta

from recyclelora.config.compose import home


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(home())]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and nothing else; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, str(wheel)], check=True, timeout=120)
    return folder


def away(site: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder`` with the installed wheel, which stands before any other copy on the path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RECYCLELORA")} | {"PYTHONPATH": str(site)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_every_option_file_and_nothing_else_is_packaged(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    options = {f"recyclelora/{path.relative_to(home())}" for top in ("conf", "sweeps")
               for path in (home() / top).rglob("*.yaml")}  # fmt: skip
    sources = {str(path.relative_to(home() / "src")) for path in (home() / "src").rglob("*.py")}
    assert options | sources <= names
    assert {"recyclelora/runs/result.schema.json", "recyclelora/reports/templates/inspection.html"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} <= {"recyclelora", "hydra_plugins"}
    assert "hydra_plugins/__init__.py" not in names  # a namespace that other packages share
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["script", "module"])
def test_a_training_from_another_folder(site: Path, tmp_path: Path, way: str):
    make_cityscapes(make_gta(tmp_path / "data"))
    start = [str(site / "bin/recyclelora-train")] if way == "script" else [sys.executable, "-m", "recyclelora.train"]
    done = away(site, tmp_path, *start, *TINY, f"cache={tmp_path / 'cache'}")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/runs").iterdir()
    assert (run / "result.json").is_file()
    scored = away(site, tmp_path, sys.executable, "-m", "recyclelora.evaluate", f"run={run}", "num_workers=0")
    assert scored.returncode == 0, scored.stderr
    where = away(site, tmp_path, sys.executable, "-c", "import recyclelora.config.compose as c; print(c.home())")
    assert where.stdout.strip() == str(site / "recyclelora")


@pytest.mark.slow
def test_every_command_is_installed_and_says_what_it_needs(site: Path, tmp_path: Path):
    commands = sorted((site / "bin").glob("recyclelora-*"))
    assert len(commands) == 10
    for command in commands:
        done = away(site, tmp_path, str(command), "bogus=1")
        said = "kind" if command.name == "recyclelora-import" else "bogus"  # what it has to be told first
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
