"""Figure 4: a run of 60 steps, gone on with from each of its steps.

    python benchmarks/reliability/resume.py --count 60

One run keeps a checkpoint of every step. From each a run goes on to the end, with no and with two data workers; every
end must equal that of the run that never stopped, bit for bit: weights, optimizer, curves, scores.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from harness import command, composed, ending, run_directory, spawn, train, warmed, workspace

import recyclelora.training.trainer

STEPS = 60
OPTIONS = [
    f"trainer.max_steps={STEPS}", "trainer.eval_every=30", "trainer.checkpoint_every=1", "data.augment.photometric=0.5",
    "optimizer.lr=1e-3", "trainer.ema=0.1", "trainer.grad_clip=1.0",
]  # fmt: skip


def measure(seed: int, count: int, workers: tuple[int, ...] = (0, 2)) -> dict[str, Any]:
    """Go on from ``count`` of the steps."""
    steps = sorted(random.Random(seed).sample(range(1, STEPS + 1), min(count, STEPS)))
    with workspace() as folder:
        cache = warmed(folder, *OPTIONS)
        whole = spawn(folder / "whole.log", _keep_all, composed(folder / "whole", *OPTIONS, cache=cache))
        assert whole.wait() == 0, whole.text()
        origin = run_directory(folder / "whole")
        wanted = ending(origin)
        found = {}
        for number in workers:
            identical = 0
            for step in steps:
                place = folder / f"{number}-{step}"
                _set_back(origin, place / "outputs/runs" / origin.name, step)
                config = composed(place, *OPTIONS, f"trainer.num_workers={number}", cache=cache)
                child = spawn(place / "log", train, config)
                if child.wait() != 0:
                    print(child.text())
                else:
                    identical += ending(run_directory(place)) == wanted
                shutil.rmtree(place)
            found[f"{number} workers"] = {"resumed": len(steps), "identical": identical}
    return {"steps": STEPS, **found}


def _keep_all(config: Any) -> None:
    recyclelora.training.trainer.prune = lambda *_: None
    train(config)


def _set_back(origin: Path, place: Path, step: int) -> None:
    """The run's directory as it was when the checkpoint of a step had just been written."""
    shutil.copytree(origin, place, ignore=shutil.ignore_patterns("checkpoints", "result.json", "figures"))
    for folder in sorted((origin / "checkpoints").glob("step_*"))[:step]:
        shutil.copytree(folder, place / "checkpoints" / folder.name)


if __name__ == "__main__":
    command(measure, "resume", STEPS)
