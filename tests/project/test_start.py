"""What commands import before they do their work."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "transformers",
    "mlflow",
    "optuna",
    "matplotlib",
    "wandb",
    "pydantic",
    "onnx",
    "onnxruntime",
    "peft",
    "pandas",
    "segmentation_models_pytorch",
    "scipy.io",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.stats",
}
"""A tenth of a second up to seconds each, and none of them is needed to take a step with a dense decoder."""
LOADING = {
    "train": "recyclelora.training.run",
    "evaluate": "recyclelora.evaluation.rescoring, recyclelora.evaluation.severity",
    "predict": "recyclelora.evaluation.load, recyclelora.evaluation.image_files",
    "export": "recyclelora.exchange.exports.formats, recyclelora.exchange.exports.source",
    "analyze": "recyclelora.reports.analysis.runs, recyclelora.training.calibration",
}
"""What a command imports when its configuration is sound."""


@pytest.mark.parametrize(
    "command", [name if name == "train" else pytest.param(name, marks=pytest.mark.slow) for name in LOADING]
)
def test_no_heavy_package_is_imported_at_the_start(command: str):
    code = f"import sys, {LOADING[command]}; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_collected_while_a_training_imports_and_the_collector_is_there_again():
    code = """
import gc, sys
from recyclelora.commands.train import train
done = []
gc.callbacks.append(lambda phase, info: done.append(phase))
try:
    train(None)
except AttributeError:  # no configuration
    pass
print("torch" in sys.modules, len(done), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, collections, enabled, frozen = done.stdout.split()
    assert (loaded, enabled, frozen) == ("True", "True", "True") and int(collections) < 20
