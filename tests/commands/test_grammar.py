"""One console script, one grammar: ``recyclelora <command>``."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recyclelora.commands.help import COMMANDS, overview, screen
from recyclelora.config.compose import COMMANDS as SCHEMAS
from recyclelora.config.compose import home

ONE_SCREEN = 45
CONFIGURED = [module for module in COMMANDS.values() if module in SCHEMAS]


def recyclelora(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recyclelora", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_overview_imports_nothing_and_tells_every_command():
    heavy = ("torch", "hydra", "omegaconf", "mlflow", "optuna", "numpy")
    code = f"""
import runpy, sys
sys.argv = ["recyclelora", "--help"]
runpy.run_module("recyclelora", run_name="__main__")
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:-1] == overview().splitlines() and done.stdout.endswith("[]\n")
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert len(overview().splitlines()) <= ONE_SCREEN and max(map(len, overview().splitlines())) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_one_screen_with_an_example(name: str):
    done = recyclelora(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"    recyclelora {name} " in done.stdout
    assert len(done.stdout.splitlines()) <= ONE_SCREEN and max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize("module", [module for module in CONFIGURED if module not in ("train", "import_checkpoint")])
def test_help_names_every_key(module: str):
    importlib.import_module(f"recyclelora.commands.{module}")
    text = screen(f"recyclelora.commands.{module}", module)
    assert [f.name for f in dataclasses.fields(SCHEMAS[module]) if f"{f.name}=" not in text] == []


def test_the_help_of_training_names_the_options():
    importlib.import_module("recyclelora.commands.train")
    text = screen("recyclelora.commands.train", "train")
    assert "\nadapter=     adalora, adaptformer, " in text and "rank_split" in text and "hydra" not in text.split()


def test_a_script_in_the_repository_has_the_same_help():
    done = subprocess.run([sys.executable, str(home() / "evaluate.py"), "-h"], capture_output=True, text=True)
    assert done.stdout == recyclelora("evaluate", "--help").stdout


def test_an_unknown_command_names_the_nearest():
    done = recyclelora("evalute", "run=x")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "recyclelora: no command 'evalute' (did you mean evaluate?); recyclelora --help lists them\n"
    )


def test_a_command_gets_the_rest_of_the_line():
    done = recyclelora("train", "adapter=lora", "adapter.main.rank=7", "--cfg", "job", "--package", "adapter.main")
    assert done.returncode == 0 and "rank: 7" in done.stdout
    bad = recyclelora("inspect-data", "num_samples=-1")
    assert bad.returncode == 2 and bad.stderr.startswith("inspect_data: num_samples=-1: ")


def test_folders_have_their_commands_too(tmp_path: Path):
    assert recyclelora("sweep", "status", str(tmp_path)).stderr == f"sweep: {tmp_path}: no sweep (no study.json)\n"
    assert recyclelora("cache", "--dir", str(tmp_path), "list").stdout == f"{tmp_path}: nothing cached\n"
    nothing = recyclelora("track", "sync", str(tmp_path))
    assert nothing.returncode == 1 and nothing.stderr.startswith(f"sync: {tmp_path}: ")


def test_scripts_of_the_first_release_stay():
    scripts = tomllib.loads((home() / "pyproject.toml").read_text())["project"]["scripts"]
    old = {f"recyclelora-{name}" for name in COMMANDS if name not in ("sweep", "track", "cache", "init-data")}
    assert scripts.keys() == old | {"recyclelora"}


def test_every_command_says_what_may_follow():
    """At its end, by itself or where its job ends."""
    elsewhere = {"train": "training/result.py", "report": "reports/writing.py", "sweep": "sweep/control.py",
                 "init_data": "data/recognition/describe.py"}  # fmt: skip
    for module in COMMANDS.values():
        path = home() / "src/recyclelora" / elsewhere.get(module, f"commands/{module}.py")
        assert "next_steps(" in path.read_text(), f"{path} ends without a word of what may follow"
