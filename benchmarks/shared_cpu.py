"""The demo's training step beside six busy processes: with threads that soon sleep while they wait, as commands set
them, and as torch leaves them.

    python benchmarks/shared_cpu.py        # writes shared_cpu.json; slows everything else down for some minutes

Two processes hold the model and take steps in turns, the same ones; a step that takes longer than the limit ends the
measurement and counts as the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import selectors
import statistics
import subprocess
import sys
import time
from pathlib import Path

WORKER = """
import sys, time, torch
from recyclelora.commands.api.calls import configured
from recyclelora.config.build import build_model, locate_weights

config = configured(["experiment=demo"])
segmenter = build_model(config, locate_weights(config.backbone)).segmenter.train()
optimizer = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad], lr=1e-4)
size = (config.trainer.batch_size, *config.data.augment.crop)
labels = torch.randint(0, 19, size, dtype=torch.uint8)
images = labels[:, None].expand(-1, 3, -1, -1).contiguous()

def step():
    with torch.autocast("cpu", torch.bfloat16):
        losses = segmenter(images, labels)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()

step()
print(torch.get_num_threads(), flush=True)
for _ in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
"""
OURS = "from recyclelora.system.cores import patient_threads; patient_threads()\n"
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


class Worker:
    """A process that takes a step when it is told to."""

    def __init__(self, code: str) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.threads = int(self._line(600))

    def _line(self, limit: float) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() if selector.select(limit) else ""

    def step(self, limit: float) -> tuple[float, float | None]:
        """Seconds of wall and of CPU time; (limit, None) where it is not done by then."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self._line(limit)
        if not line:
            return limit, None
        wall, cpu = map(float, line.split())
        return wall, cpu


def measure(workers: dict[str, Worker], busy: int, turns: int, limit: float) -> dict[str, object]:
    """Steps of all workers in turns beside so many busy processes."""
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in workers}
    load = os.getloadavg()[0]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        time.sleep(0.5)
        for _ in range(turns):
            for name, worker in workers.items():
                found[name].append(worker.step(limit))
            if any(cpu is None for values in found.values() for _, cpu in values):
                break
    finally:
        for other in others:
            other.kill()
            other.wait()
    table: dict[str, object] = {"load_before": round(load, 1)}
    for name, values in found.items():
        table[name] = {
            "wall_seconds": round(statistics.median(wall for wall, _ in values), 2),
            "cpu_seconds": round(statistics.median(cpu for _, cpu in values if cpu is not None), 2)
            if any(cpu is not None for _, cpu in values)
            else None,
            "all_wall_seconds": [round(wall, 2) for wall, _ in values],
            "unfinished": sum(cpu is None for _, cpu in values),
        }
    ours, default = (table[name]["wall_seconds"] for name in ("ours", "default"))
    table["ratio"] = round(default / ours, 1)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=6)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--limit", type=float, default=120, help="seconds of one step")
    options = parser.parse_args()
    workers = {"ours": Worker(OURS + WORKER), "default": Worker(WORKER)}
    try:
        alone = measure(workers, 0, options.turns, options.limit)
        print(json.dumps(alone, indent=2), flush=True)
        beside = measure(workers, options.busy, options.turns, options.limit)
    finally:
        for worker in workers.values():
            worker.process.kill()
    result = {
        "what": "seconds of a training step of experiment=demo (DINOv2-S, bfloat16), medians, in turns",
        "machine": {
            "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.machine(),
            "threads": {name: worker.threads for name, worker in workers.items()},
        },
        "without_busy_processes": alone,
        f"beside_{options.busy}_busy_processes": beside,
    }  # fmt: skip
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    least = "at least " if beside["default"]["unfinished"] else ""
    print(
        f"beside {options.busy} busy processes a step takes {least}{beside['ratio']} times as long without the set-up"
    )


if __name__ == "__main__":
    main()
