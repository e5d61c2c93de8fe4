"""Figure 1: SIGKILL at random moments of a training run, then the same run again.

    python benchmarks/reliability/kills.py --seed 0 --count 200

Counted: checkpoints that cannot be read, steps lost beyond one interval, ends that differ in a bit from those of a run
that nobody disturbed. Beside it the usual way, `torch.save` into one file: both save 8 MB again and again and are
killed as often.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from harness import command, composed, ending, run_directory, spawn, train, warmed, workspace

from recyclelora.runs.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, point, prune, save_checkpoint
from recyclelora.system.errors import UserError

INTERVAL = 2
STEPS = 12
OPTIONS = [f"trainer.max_steps={STEPS}", "trainer.eval_every=6", f"trainer.checkpoint_every={INTERVAL}"]
MEGABYTES = 8


def measure(seed: int, count: int, saves: int | None = None) -> dict[str, Any]:
    """Kill ``count`` runs once each, and each way of saving ``saves`` times (half as many by default)."""
    rng = random.Random(seed)
    with workspace() as folder:
        training = _training(rng, count, folder)
        ways = {"recyclelora": (_save_ours, _read_ours), "torch.save in place": (_save_stock, _read_stock)}
        saving = {
            name: _saving(random.Random(seed), count // 2 if saves is None else saves, folder / name.split()[0], *way)
            for name, way in ways.items()
        }
    return {"interval": INTERVAL, "training": training, "saving": {"megabytes": MEGABYTES, **saving}}


# --- a training run ----------------------------------------------------------------------------------------------


def _training(rng: random.Random, count: int, folder: Path) -> dict[str, Any]:
    cache = warmed(folder, *OPTIONS)
    began = time.monotonic()
    whole = spawn(folder / "whole.log", train, composed(folder / "whole", *OPTIONS, cache=cache))
    assert whole.wait() == 0, whole.text()
    seconds, wanted = time.monotonic() - began, ending(run_directory(folder / "whole"))
    found = {"kills": 0, "unreadable": 0, "lost_beyond_interval": 0, "most_steps_lost": 0, "failed": 0, "identical": 0}
    phases: dict[str, int] = {}
    while found["kills"] < count:
        place = folder / f"run-{found['kills']}"
        child = spawn(place / "killed.log", train, composed(place, *OPTIONS, cache=cache))
        time.sleep(rng.uniform(0, seconds))
        child.kill()
        if child.wait() == 0:  # it had finished
            shutil.rmtree(place)
            continue
        found["kills"] += 1
        unreadable, lost, phase = _after(place)
        phases[phase] = phases.get(phase, 0) + 1
        found["unreadable"] += unreadable
        found["lost_beyond_interval"] += lost > INTERVAL
        found["most_steps_lost"] = max(found["most_steps_lost"], lost)
        again = spawn(place / "again.log", train, composed(place, *OPTIONS, cache=cache))
        if again.wait() != 0:
            found["failed"] += 1
            print(again.text())
        else:
            found["identical"] += ending(run_directory(place)) == wanted
        shutil.rmtree(place)
    return found | {"killed": dict(sorted(phases.items())), "seconds_of_a_run": round(seconds, 2)}


def _after(place: Path) -> tuple[int, int, str]:
    """What a kill left: unreadable checkpoints, steps done after the newest of them, and how far the run was."""
    runs = list((place / "outputs/runs").glob("*"))
    if not runs:
        return 0, 0, "before the run's directory"
    (run,) = runs
    folders = list(run.glob("checkpoints/step_*"))
    steps, unreadable = [0], 0
    for folder in folders:
        try:
            steps.append(load_checkpoint(folder).step)
        except UserError:
            unreadable += 1
    done = 0
    for line in (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else ():
        if line.endswith("}"):
            done = max(done, int(json.loads(line)["step"]))
    phase = "after the last step" if done == STEPS else f"after {done // INTERVAL * INTERVAL} steps or more"
    return unreadable, done - max(steps), phase


# --- nothing but saving ------------------------------------------------------------------------------------------


def _state(step: int) -> dict[str, torch.Tensor]:
    return {f"weight{index}": torch.full((2**18 * MEGABYTES // 8,), float(step)) for index in range(8)}


def _save_ours(folder: Path) -> None:
    for step in range(1, 1_000_000):
        save_checkpoint(folder, Checkpoint(step, {"trained": _state(step)}, {}))
        point(folder, "last", step)
        prune(folder, 2, ("last",))


def _read_ours(folder: Path) -> bool:
    warnings: list[str] = []
    found = newest_checkpoint(folder, warnings.append)
    return found is None or (not warnings and all((v == found.step).all() for v in found.tensors["trained"].values()))


def _save_stock(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(1, 1_000_000):
        torch.save({"step": step, "model": _state(step)}, folder / "last.pt")


def _read_stock(folder: Path) -> bool:
    path = folder / "last.pt"
    if not path.exists():
        return True
    try:
        found = torch.load(path, weights_only=True)
    except Exception:
        return False
    return all(bool((value == found["step"]).all()) for value in found["model"].values())


def _saving(rng: random.Random, count: int, folder: Path, save: Any, read: Any) -> dict[str, int]:
    unreadable = 0
    for index in range(count):
        place = folder / str(index)
        child = spawn(folder / "log", save, place)
        time.sleep(rng.uniform(0.05, 0.4))
        child.kill()
        child.wait()
        try:
            unreadable += not read(place)
        except UserError:
            unreadable += 1
        shutil.rmtree(place, ignore_errors=True)
    return {"kills": count, "unreadable": unreadable}


if __name__ == "__main__":
    command(measure, "training_kills", 200)
