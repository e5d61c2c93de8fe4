"""What is measured on: device, versions, the precision policy, and what the device gives at best."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from common import Figures, device, options, seconds

from recyclelora.system.hardware import hardware

PACKAGES = (
    "torch", "torchvision", "timm", "transformers", "lightning-fabric", "hydra-core", "omegaconf", "numpy", "scipy",
    "opencv-python-headless", "pyspng", "simplejpeg", "segmentation-models-pytorch", "onnxruntime", "onnxruntime-gpu",
    "onnxscript", "triton", "rich", "mlflow", "optuna",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Of the packages that count; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def product(where: str, dtype: torch.dtype, n: int, *, tf32: bool = False) -> float:
    """Teraflop per second of a square matrix product."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))
    found = round(2e-12 * n**3 / seconds(lambda: a @ b, 5, warm=2), 3)
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def copies(where: str, mebibytes: int) -> dict[str, float]:
    """Gigabytes per second within the device (read and written) and from pinned memory to it."""
    here = torch.empty(mebibytes << 20, dtype=torch.uint8, pin_memory=where == "cuda")
    there, other = (torch.empty_like(here, device=where) for _ in range(2))
    gigabytes = here.numel() / 1e9
    return {
        "within_device": round(2 * gigabytes / seconds(lambda: there.copy_(other), 5), 2),
        "from_pinned_host": round(gigabytes / seconds(lambda: there.copy_(here, non_blocking=True), 5), 2),
    }


def driver() -> str:
    """What nvidia-smi says of the device."""
    asked = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,clocks.sm,power.limit",
        "--format=csv,noheader",
    ]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    given = options(__doc__)
    where, n = device(given.dry), 256 if given.dry else 8192
    figures = Figures(given.output, python=platform.python_version(), cores=os.cpu_count(), versions=versions())
    if not given.dry:
        figures.attempt("nvidia_smi", driver)
    figures.attempt("hardware", hardware)
    figures.attempt("memory_gib", lambda: _memory())
    rates: dict[str, Any] = {
        "float32": lambda: product(where, torch.float32, n),
        "tf32": lambda: product(where, torch.float32, n, tf32=True),
        "bfloat16": lambda: product(where, torch.bfloat16, n),
    }
    for name, rate in rates.items():
        figures.attempt(f"matrix_product_tflop_per_second_{name}", rate)
    figures.attempt("copies_gb_per_second", lambda: copies(where, 16 if given.dry else 2048))
    figures.finish()


def _memory() -> float:
    text = Path("/proc/meminfo").read_text().split()
    return round(int(text[text.index("MemTotal:") + 1]) / 2**20, 1)


if __name__ == "__main__":
    main()
