"""The core trains and evaluates without any extra; what an extra brings is named where it is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import TINY

from recyclelora.config.compose import home

PROJECT = tomllib.loads((home() / "pyproject.toml").read_text())["project"]
MODULES = {
    "segmentation-models-pytorch": "segmentation_models_pytorch", "nvidia-ml-py": "pynvml",
    "hydra-optuna-sweeper": "hydra_plugins.hydra_optuna_sweeper",
    "hydra-submitit-launcher": "hydra_plugins.hydra_submitit_launcher",
}  # fmt: skip
"""What packages are imported as, where not by their own names."""


def modules_of(*extras: str) -> list[str]:
    """What the packages of some extras, or of the core, are imported as."""
    needs = [need for extra in extras for need in PROJECT["optional-dependencies"][extra]]
    names = [re.match(r"[\w-]+", need)[0] for need in needs]
    return [MODULES.get(name, name) for name in names]


EXTRAS = modules_of("decoders", "sweep", "mlflow", "export", "weights", "tensorboard", "wandb")

CORE = ["system", "drawing", "data", "config", "runs", "evaluation", "training", "reports", "exchange.exports.formats"]
"""What every command but `sweep` and `track` starts with."""


def without(modules: list[str], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as where these modules are not installed."""
    code = f"""
import runpy, sys
sys.modules |= dict.fromkeys({modules})
sys.argv = ["recyclelora", *{list(command)}]
runpy.run_module("recyclelora", run_name="__main__", alter_sys=True)
"""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}  # of Hydra, whose entry points are installed here
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.slow
def test_the_core_trains_and_evaluates_without_any_extra(tmp_path: Path, gta2city: Path):
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    done = without(EXTRAS, tmp_path, "train", *TINY, *places, "decoder=linear", "tracking=none")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/runs").iterdir()
    again = without(EXTRAS, tmp_path, "evaluate", f"run={run}")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ["train", "tracking=mlflow", "decoder=linear"],
            r"tracking.mlflow=true needs .* mlflow: .*\[mlflow\]",
        ),
        (["train", "tracking=none"], r"decoder=mask2former needs the package transformers: .*\[decoders\]"),
        (["train", "tracking=none", "decoder=dpt"], r"decoder=dpt needs the package segmentation_models.*\[decoders\]"),
        (["train", "-m", "tracking=none", "decoder=linear", "seed=0,1"], r"a sweep .* package optuna: .*\[sweep\]"),
        (["sweep", "status", "."], r"recyclelora sweep needs the package optuna: .*\[sweep\]"),
        (["track", "sync", "."], r"recyclelora track sync needs the package mlflow: .*\[mlflow\]"),
        (["track", "ui"], r"recyclelora track ui needs the package mlflow: .*\[mlflow\]"),
    ],
)
def test_a_missing_extra_is_one_line(tmp_path: Path, gta2city: Path, command: list[str], words: str):
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    tiny = [option for option in TINY if not option.startswith(("decoder", "tracking", "experiment"))]
    done = without(EXTRAS, tmp_path, *command, *(tiny + places if command[0] == "train" else []))
    assert done.returncode == 2 and re.search(words, done.stderr) and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("outputs/runs/*/checkpoints/*"))


def test_adapters_need_only_torch_and_pure_mathematics():
    others = [
        "timm",
        "torchvision",
        "lightning_fabric",
        "hydra",
        "omegaconf",
        "yaml",
        "cv2",
        "PIL",
        "matplotlib",
        "rich",
    ]
    code = f"""
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys({others + EXTRAS})
import recyclelora.adapters
for module in pkgutil.walk_packages(recyclelora.adapters.__path__, "recyclelora.adapters."):
    importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_all_is_every_extra_that_a_user_may_want():
    extras = PROJECT["optional-dependencies"]
    (whole,) = extras["all"]
    assert set(whole.removeprefix("recyclelora[").removesuffix("]").split(",")) == extras.keys() - {
        "all", "build", "dev", "postgres"
    }  # fmt: skip


def test_what_the_core_does_imports_without_any_extra():
    code = f"""
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys({EXTRAS})
for name in {CORE}:
    package = importlib.import_module("recyclelora." + name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
