"""What becomes of a command line before Hydra gets it, and a Hydra user's habits on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.types import HydraContext

from recyclelora.commands.launch import launched
from recyclelora.config.compose import ConfigError, home, register_schemas
from recyclelora.sweep.command import checked_arguments, study_name
from recyclelora.sweep.task import without_secrets

SCRIPTS = ["train", "evaluate", "predict", "export", "analyze", "inspect_data", "report", "prepare", "repeat"]


def own_config(folder: Path, name: str, text: str) -> list[str]:
    """A user's own primary config, and the words with which Hydra takes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(f"defaults: [train, _self_]\n{text}")
    return ["--config-dir", str(folder), "--config-name", name]


def test_the_same_sweep_command_has_the_same_study():
    first = checked_arguments("train", ["-m", "adapter=frozen,lora", "seed=0,1"])
    assert first == checked_arguments("train", ["-m", "adapter=frozen,lora", "seed=0,1"])
    assert first[-1].startswith("study=adapter-seed-")
    assert first[-1] != checked_arguments("train", ["-m", "adapter=frozen,lora", "seed=0,2"])[-1]
    assert checked_arguments("train", ["-m", "seed=0,1", "study=mine"])[-1] == "study=mine"
    assert study_name(["sweeps=rank_split"]).startswith("rank_split-")


def test_hydras_mode_is_a_multirun_like_any_other(tmp_path: Path):
    name = checked_arguments("train", ["-m", "seed=0,1"])[-1]
    assert checked_arguments("train", ["seed=0,1", "hydra.mode=MULTIRUN"])[-1] == name
    assert not any(a.startswith("study=") for a in checked_arguments("train", ["seed=1", "hydra.mode=RUN"]))
    own = own_config(tmp_path, "mine", "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n")
    assert checked_arguments("train", own)[-1].startswith("study=study-")
    with pytest.raises(ConfigError, match="-m is for train"):
        checked_arguments("evaluate", ["hydra.mode=MULTIRUN"])


def test_a_relative_config_path_is_meant_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    assert checked_arguments("train", ["--config-path", "my"])[1] == str(tmp_path / "my")
    assert checked_arguments("train", ["-cp=my"])[0] == f"-cp={tmp_path / 'my'}"


@pytest.mark.parametrize("flag", ["--config-dir", "--config-path"])
def test_a_primary_config_of_ones_own_begins_with_the_shipped_one(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    own = own_config(tmp_path, "mine", "seed: 3\nstudy: x\n")
    monkeypatch.setattr(sys, "argv", ["train.py", flag, *own[1:], "--cfg", "job", "data=streets"])
    with launched("train", lambda config, trial: None) as job:
        job()
    out = capsys.readouterr().out
    assert "seed: 3" in out and "study: x" in out


def test_a_search_path_on_the_command_line_is_added_to_the_shipped_one(tmp_path: Path):
    register_schemas()
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nseed: 7\n")
    with initialize_config_dir(str(home() / "conf")):
        node = compose("train", [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "sweeps=seeds"])
    assert node.seed == 7


@pytest.mark.parametrize("sweeper", ["optuna", "basic", "recyclelora"])
@pytest.mark.parametrize("launcher", ["local", "slurm", "basic", "submitit_local", "submitit_slurm"])
def test_stock_sweepers_and_launchers_compose_and_are_built(sweeper: str, launcher: str):
    register_schemas()
    overrides = [f"hydra/sweeper={sweeper}", f"hydra/launcher={launcher}", "data=streets", "study=s"]
    with initialize_config_dir(str(home() / "conf")):
        config = compose("train", overrides, return_hydra_config=True)
    built = Plugins.instance().instantiate_sweeper(
        hydra_context=HydraContext(callbacks=None, config_loader=None), task_function=print, config=config
    )
    assert type(built).__name__.lower().startswith(sweeper)
    if sweeper != "basic":
        assert config.hydra.sweeper.study_name == "s" and str(config.hydra.sweeper.direction).endswith("maximize")
    if sweeper == "recyclelora":
        assert config.hydra.sweeper.snapshot == "on"


def test_interpolations_on_the_command_line_stay_what_they_are():
    register_schemas()
    given = "hydra.launcher.timeout_min=${trainer.max_steps}"
    with initialize_config_dir(str(home() / "conf")):
        config = compose("train", ["data=streets", "study=s"], return_hydra_config=True)
    config.hydra.overrides.hydra = [given]
    kept = without_secrets(config).hydra.overrides.hydra
    assert kept._get_node(0)._value() == given


@pytest.mark.parametrize("script", SCRIPTS)
def test_hydras_completion_recognises_every_script(script: str):
    assert "@hydra.main" in (home() / f"{script}.py").read_text()  # what Hydra's own function looks for


def test_bash_completes_options():
    typed = "python train.py -m adapter=rsl"
    script = f"""
        eval "$(python train.py -sc install=bash)"
        COMP_LINE='{typed}' COMP_POINT={len(typed)} COMP_CWORD=3 hydra_bash_completion
        echo "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=home(), env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [b"adapter=rslora"]


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("reference=lora", "reference=lora"),
        ("reference=adapter=frozen", 'reference="adapter=frozen"'),
        ("reference=main.rank=32, sub.rank=4", 'reference="main.rank=32, sub.rank=4"'),
        ('reference="adapter=frozen"', 'reference="adapter=frozen"'),
    ],
)
def test_a_reference_needs_no_quotes(given, passed):
    assert checked_arguments("report", ["sweep=a", given]) == ["sweep=a", passed]
