"""What pruning wins on the built-in streets: the same 10 trials with and without it. Writes pruning.json.

    python benchmarks/pruning.py           # about 10 minutes on 2 cores

RecycleLoRA on DINOv2 ViT-S at random learning rates and scales (the same points in both sweeps, since they come from
one seed), 48 steps with three looks at the source validation set on the way, two trials at a time. The median pruner
stops what is worse than half of the others at the same step. Counted: seconds, trials an hour, steps, the best of both.
The sweeps are ordinary ones below outputs/: a second call only reads them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from recyclelora.sweep.ledger import Ledger
from recyclelora.system.storage import read_json

ROOT = Path(__file__).resolve().parents[1]
TRIALS = 10
SEARCH = [
    "-m", "experiment=demo", "tracking=none", "output_dir=outputs/benchmarks", f"n_trials={TRIALS}", "n_jobs=2",
    "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "trainer.max_steps=48", "trainer.eval_every=12",
    "trainer.num_figures=0", "trainer.checkpoint_every=48",
    "data.targets=[{dataset: streets, split: night, name: night, subset: 8}]", "data.source_val.subset=16",
    "optimizer.lr=tag(log, interval(1e-5, 1e-2))", "adapter.scale=tag(log, interval(0.03, 3.0))",
]  # fmt: skip
WAYS = {
    "all to the end": [],
    "median pruner": ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=3"],
}


def sweep(way: str) -> dict[str, object]:
    """Run, or find finished, one of the sweeps."""
    study = f"pruning-{way.replace(' ', '-')}"
    command = [sys.executable, str(ROOT / "train.py"), *SEARCH, *WAYS[way], f"study={study}"]
    folder = ROOT / "outputs/benchmarks/sweeps" / study
    if not (folder / "summary.json").exists():
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    summary, trials = read_json(folder / "summary.json"), Ledger(folder).trials()
    reports = [sum(1 for _ in trial.unit_folder(0).joinpath("reports.jsonl").open()) for trial in trials]
    return {
        "points": sorted(str(trial.params) for trial in trials),
        "seconds": summary["seconds"],
        "trials_an_hour": round(3600 * TRIALS / summary["seconds"], 1),
        "steps_trained": sum(read_json(trial.unit_folder(0) / "progress.json")["step"] for trial in trials),
        "evaluations": sum(reports),
        "counts": {state: number for state, number in summary["counts"].items() if number},
        "best": summary["best"],
    }


def main() -> None:
    """Write pruning.json."""
    rows = {way: sweep(way) for way in WAYS}
    full, pruned = rows.values()
    assert full.pop("points") == pruned.pop("points"), "the sweeps tried different points"
    result = {
        "command": " ".join(SEARCH), **rows,
        "same_best_trial": full["best"] == pruned["best"],
        "times_as_many_trials_an_hour": round(pruned["trials_an_hour"] / full["trials_an_hour"], 2),
        "cpus": os.cpu_count(), "python": platform.python_version(),
    }  # fmt: skip
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
