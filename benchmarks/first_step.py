"""Seconds from the command to the first finished training step of the demo, and of a finished run's report.

python benchmarks/first_step.py        # writes first_step.json; run the demo once before, so that caches are warm
python benchmarks/first_step.py --before OTHER_CHECKOUT        # in turns with an earlier state of the code

Beside wall seconds stand the processor's, which other work on the machine hardly changes (Linux).
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
BARE = "import torch, timm, lightning_fabric"


def first_step(checkout: Path, folder: Path) -> dict[str, float]:
    """Run two steps of the demo and then the same command again; seconds of both."""
    command = [
        sys.executable, str(checkout / "train.py"), "experiment=demo", f"output_dir={folder}", "tracking=none",
        "trainer.max_steps=2", "trainer.log_every=1", "data.source_val.subset=1",
        "data.targets=[{dataset: streets, split: day, subset: 1}]",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    while not (points := list(folder.glob("runs/*/metrics.jsonl"))) or not points[0].stat().st_size:
        if process.poll():
            raise SystemExit(f"ended with {process.returncode}")
        time.sleep(0.005)
    cpu = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    first = json.loads(points[0].read_text().splitlines()[0])["time"] - began
    process.wait()
    again = timed(command, environment)
    return {
        "first_step": first, "first_step_cpu": cpu / os.sysconf("SC_CLK_TCK"),
        "finished_run_reported": again[0], "finished_run_reported_cpu": again[1],
    }  # fmt: skip


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Seconds of wall and of CPU time of a command."""
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: ended with status {status}")
    return time.time() - began, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout, measured in turns")
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    load = os.getloadavg()[0]
    for _ in range(options.repeats):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as folder:
                values = first_step(checkout, Path(folder))
            wall, cpu = timed([sys.executable, "-c", BARE])
            print(name, values, flush=True)
            for key, value in {**values, "imports_alone": wall, "imports_alone_cpu": cpu}.items():
                measured[name].setdefault(key, []).append(round(value, 2))
    result = {
        "what": "seconds; DINOv2-S, RecycleLoRA 32+4, factors and scenes cached",
        "machine": {
            "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.machine(),
            "load_at_start": round(load, 1),
        },
    }  # fmt: skip
    for name, figures in measured.items():
        result[name] = {
            "median": {key: round(statistics.median(values), 2) for key, values in figures.items()},
            "best": {key: min(values) for key, values in figures.items()},
            "all": figures,
        }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: result[name]["best"] for name in checkouts}, indent=2))


if __name__ == "__main__":
    main()
