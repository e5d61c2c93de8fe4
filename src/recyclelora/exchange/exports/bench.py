"""``bench=true``: how long an exported segmenter takes and what memory it needs, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from recyclelora.system.cores import available_cores
from recyclelora.system.errors import UserError
from recyclelora.system.hardware import hardware
from recyclelora.system.typed_json import read_object

REPEATS = 20
SCRIPT = r"""
import json, re, statistics, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
from load import Segmenter
folder, device, batch, height, width, repeats = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
segmenter = Segmenter(folder, device=device)
images = np.random.default_rng(0).integers(0, 256, (batch, 3, height, width)).astype(np.float32)
times = []
for index in range(repeats + 2):
    began = time.perf_counter()
    segmenter.batch_scores(images)
    times.append(1e3 * (time.perf_counter() - began))
times = sorted(times[2:])
print(json.dumps({"median_ms": statistics.median(times), "p90_ms": times[int(0.9 * (len(times) - 1))],
                  "peak_memory_mb": int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024}))
"""
"""Runs beside nothing of this project: what a user of the export has."""


def measured(folder: Path, size: tuple[int, int], repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Latency of one image of ``size`` (H, W) on every device that is there, decoding and argmax left out.

    Raises:
        UserError: the export cannot be run on the CPU.
    """
    batch = read_object(folder / "segmenter.json")["images"]["batch"] or 1
    rows = []
    for device in _devices(folder):
        command = [sys.executable, "-c", SCRIPT, str(folder), device, *map(str, (batch, *size, repeats))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            if device != "cpu":
                continue  # there, but not to be used from this installation
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise UserError(f"bench=true: {reason}")
        about = {
            "device": device, "size": list(size), "batch": batch, "threads": threads(), "processor": hardware()["cpu"],
        }  # fmt: skip
        rows.append(about | json.loads(done.stdout.strip().splitlines()[-1]))
    return rows


def threads() -> int:
    """Threads that the measured process may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or available_cores())


def _devices(folder: Path) -> list[str]:
    if (folder / "segmenter.onnx").is_file():
        import onnxruntime

        return ["cpu", *(["cuda"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else [])]
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def bench_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One row a device."""
    title = "latency of one batch"
    table = Table("device", "image", "batch", "ms, median", "ms, 90 %", "memory of the process, MB", title=title)
    for r in rows:
        size = f"{r['size'][0]}x{r['size'][1]}"
        numbers = (f"{r['median_ms']:.1f}", f"{r['p90_ms']:.1f}", f"{r['peak_memory_mb']:.0f}")
        table.add_row(r["device"], size, str(r["batch"]), *numbers)
    return table
