"""What a run imports before its first step."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "transformers",
    "mlflow",
    "optuna",
    "matplotlib",
    "wandb",
    "pydantic",
    "onnxruntime",
    "segmentation_models_pytorch",
}
"""Seconds each, and none of them is needed to take a step with a dense decoder."""


def test_no_heavy_package_is_imported_before_the_first_step():
    code = f"import sys, recyclelora.training.run; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
