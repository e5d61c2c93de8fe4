"""What a trial costs besides its training, and how long 32 unequal trials take. Writes sweep_overhead.json.

    python benchmarks/sweep_overhead.py            # about 6 minutes on 2 cores; ours beside hydra-optuna-sweeper

Overhead: wall seconds of a sweep of 12 trials whose task does nothing, less those of one with 2, by 10; random search,
SQLite. Unequal: 32 trials of 0.2 to 3 s (seeded), 2 at a time; beside it the sum of their seconds by 2, which no
scheduler beats.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import tempfile
from pathlib import Path

from sweep_app import STOCK, Sweep

RANDOM = ["x=interval(-5.0,5.0)", "hydra/sweeper/sampler=random"]
ROWS = {"recyclelora x1": (None, 1), "recyclelora x2": (None, 2), "stock in process": (STOCK["in process"], 1),
        "stock joblib x2": (STOCK["joblib"], 2), "stock submitit x2": (STOCK["submitit"], 2)}  # fmt: skip


def overhead(folder: Path, repeats: int) -> dict[str, float]:
    """Milliseconds a trial, the median of the repeats."""
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for repeat in range(repeats):
        for name, (launcher, jobs) in ROWS.items():
            seconds = []
            for trials in (2, 12):
                sweep = Sweep(folder / f"{name} {repeat} {trials}", launcher, jobs)
                code, took = sweep.run(*RANDOM, f"hydra.sweeper.n_trials={trials}")
                assert code == 0 and sweep.states() == {"COMPLETE": trials}, (name, (sweep.folder / "log").read_text())
                seconds.append(took)
            found[name].append(100 * (seconds[1] - seconds[0]))
    return {name: round(statistics.median(values), 1) for name, values in found.items()}


def unequal(folder: Path) -> dict[str, float]:
    """Seconds of 32 unequal trials."""
    rng = random.Random(0)
    pauses = [round(rng.uniform(0.2, 3.0), 2) for _ in range(32)]
    listed = ",".join(map(str, range(32)))
    found = {"sum by 2": round(sum(pauses) / 2, 1)}
    for name in ("recyclelora x2", "stock joblib x2", "stock submitit x2"):
        launcher, jobs = ROWS[name]
        sweep = Sweep(folder / f"unequal {name}", launcher, jobs)
        grid = [f"x={listed}"] if launcher is None else [f"x=choice({listed})", "hydra/sweeper/sampler=grid",
                                                         "hydra.sweeper.n_trials=32"]  # fmt: skip
        code, seconds = sweep.run(*grid, f"unequal={pauses}".replace(" ", ""))
        assert code == 0 and sweep.states() == {"COMPLETE": 32}, (name, (sweep.folder / "log").read_text()[-2000:])
        found[name] = round(seconds, 1)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "machine": f"{platform.processor() or platform.machine()}, {platform.python_version()}",
            "overhead_ms_per_trial": overhead(Path(folder), 3),
            "unequal_32_trials_seconds": unequal(Path(folder)),
        }
    print(json.dumps(result, indent=2))
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
