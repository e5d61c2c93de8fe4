"""Seconds from the command to the first finished training step of the demo, and of a finished run's report.

python benchmarks/first_step.py        # writes first_step.json; run the demo once before, so that caches are warm
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BARE = "import time; b = time.time(); import torch, timm, lightning_fabric; print(time.time() - b)"


def first_step(folder: Path, *overrides: str) -> dict[str, float]:
    """Run two steps of the demo and then the same command again; seconds of both."""
    command = [
        sys.executable, str(ROOT / "train.py"), "experiment=demo", f"output_dir={folder}", "tracking=none",
        "trainer.max_steps=2", "trainer.log_every=1", "data.source_val.subset=1",
        "data.targets=[{dataset: streets, split: day, subset: 1}]", *overrides,
    ]  # fmt: skip
    began = time.time()
    subprocess.run(command, check=True, capture_output=True)
    (metrics,) = folder.glob("runs/*/metrics.jsonl")
    first = json.loads(metrics.read_text().splitlines()[0])["time"] - began
    began = time.time()
    subprocess.run(command, check=True, capture_output=True)
    return {"first_step": first, "finished_run_reported": time.time() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    measured: dict[str, list[float]] = {}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            values = first_step(Path(folder))
        bare = subprocess.run([sys.executable, "-c", BARE], check=True, capture_output=True, text=True)
        for name, value in {**values, "imports_alone": float(bare.stdout)}.items():
            measured.setdefault(name, []).append(round(value, 2))
    result = {
        "what": "seconds of wall time, median of repeats; DINOv2-S, RecycleLoRA 32+4, factors and scenes cached",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.machine()},
        "median": {name: round(statistics.median(values), 2) for name, values in measured.items()},
        "all": measured,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["median"], indent=2))


if __name__ == "__main__":
    main()
