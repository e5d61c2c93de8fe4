"""Do pretrained features, and RecycleLoRA on them, help on unseen streets? Three seeds of the demo's setting.

    python benchmarks/streets.py           # writes streets.json; 9 runs, about half an hour on 2 cores

Compared: a random ViT-S with a trained linear decoder, the frozen DINOv2 ViT-S with the same decoder, and RecycleLoRA
on it. Runs are ordinary runs below outputs/: a second call only reads their results.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (0, 1, 2)
METHODS = {
    "random ViT-S, frozen": ["adapter=frozen", "backbone.pretrained=false"],
    "DINOv2 ViT-S, frozen": ["adapter=frozen"],
    "DINOv2 ViT-S, RecycleLoRA (scale 1)": ["adapter=recyclelora_short"],
}
# Two-sided 95 % quantile of Student's t with two degrees of freedom: three paired seeds.
T_95 = 4.303


def train(name: str, overrides: list[str], seed: int) -> Path:
    """Train, or find finished, one run of the demo's setting; its directory."""
    study = ROOT / "outputs" / "benchmarks" / f"{re.sub(r'[^A-Za-z0-9-]+', '_', name).strip('_')}-{seed}"
    command = [sys.executable, str(ROOT / "train.py"), "experiment=demo", *overrides, f"seed={seed}"]
    command += [f"output_dir={study}", "tracking=none"]
    done = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    # runs of earlier versions may lie beside it
    return ROOT / done.stdout.rpartition("results and pictures: ")[2].strip()


def run(method: str, seed: int) -> dict:
    """The result of one run."""
    return json.loads((train(method, METHODS[method], seed) / "result.json").read_text())


def spread(values: list[float]) -> dict[str, object]:
    """Mean and standard deviation in percent, and the values themselves."""
    percent = [round(100 * value, 2) for value in values]
    return {"mean": round(statistics.mean(percent), 2), "sd": round(statistics.stdev(percent), 2), "seeds": percent}


def paired(a: list[float], b: list[float]) -> dict[str, object]:
    """Difference a - b of paired seeds in points with its 95 % t-interval."""
    found = spread([x - y for x, y in zip(a, b, strict=True)])
    half = T_95 * float(found["sd"]) / len(a) ** 0.5  # type: ignore[arg-type]
    interval = [round(float(found["mean"]) - half, 2), round(float(found["mean"]) + half, 2)]  # type: ignore[arg-type]
    return {**found, "interval_95": interval, "zero_inside": interval[0] <= 0 <= interval[1]}


def main() -> None:
    results = {method: [run(method, seed) for seed in SEEDS] for method in METHODS}
    table = {}
    for method, runs in results.items():
        names = runs[0]["miou"]["targets"]
        table[method] = {
            "mean_of_targets": spread([r["miou"]["mean"] for r in runs]),
            "source_val": spread([r["miou"]["source_val"] for r in runs]),
            **{name: spread([r["miou"]["targets"][name] for r in runs]) for name in names},
            "trainable_backbone_parameters": runs[0]["params"]["backbone_trainable"],
            "seconds": [r["seconds"] for r in runs],
        }
    means = {method: [r["miou"]["mean"] for r in runs] for method, runs in results.items()}
    random, frozen, recyclelora = means.values()
    output = {
        "what": "mIoU in percent, last checkpoint, experiment=demo, seeds 0 1 2; sd is over seeds",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.machine()},
        "table": table,
        "differences_of_target_means": {
            "frozen DINOv2 - random": paired(frozen, random),
            "RecycleLoRA - frozen DINOv2": paired(recyclelora, frozen),
        },
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(output, indent=2) + "\n")
    print(json.dumps(output["differences_of_target_means"], indent=2))


if __name__ == "__main__":
    main()
