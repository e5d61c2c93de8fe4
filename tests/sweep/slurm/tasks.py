"""What the small jobs of the tests do; nodes import this file."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from recyclelora.runs.unit import Unit
from recyclelora.system.errors import Interrupted


@dataclass(frozen=True)
class Task:
    """Stands for a HydraTask: ``do=<what>`` among the overrides says what to do."""

    def __call__(self, overrides: Sequence[str], number: int, job: str) -> JobReturn:
        given = dict(text.split("=", 1) for text in overrides)
        returned = JobReturn()
        try:
            returned.return_value = globals()[given.pop("do")](**given)
            returned.status = JobStatus.COMPLETED
        except Exception as error:
            returned.return_value, returned.status = error, JobStatus.FAILED
        return returned


def give(value: str) -> float:
    print("giving", value)
    return float(value)


def sleep(seconds: str) -> float:
    time.sleep(float(seconds))
    return 1.0


def fail() -> float:
    raise ValueError("this trial is wrong")


def die() -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def crash() -> float:
    os._exit(7)


def look() -> float:
    """Write down what the job sees."""
    unit = Unit.current()
    assert unit is not None
    names = ("CUDA_VISIBLE_DEVICES", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME", "GREETING", "PYTHONPATH")
    (unit.folder / "seen.json").write_text(json.dumps({name: os.environ.get(name) for name in names}))
    time.sleep(1)
    return 0.0


def step(steps: str) -> float:
    """Count steps of half a second; save, stop when asked, and go on from what was saved."""
    unit = Unit.current()
    assert unit is not None
    path, asked = unit.folder / "saved.txt", []
    with (unit.folder / "starts.txt").open("a") as file:
        file.write(f"{os.environ.get('SLURM_JOB_ID')} {os.environ.get('SLURM_RESTART_COUNT', 0)}\n")
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    done = int(path.read_text()) if path.exists() else 0
    while done < int(steps):
        time.sleep(0.5)
        done += 1
        if asked:
            path.write_text(str(done))
            raise Interrupted(f"stopped by signal {asked[0]} after step {done}", 128 + asked[0])
    return float(done)


def once(seconds: str) -> float:
    """Take long on the first start only."""
    unit = Unit.current()
    assert unit is not None
    mark = Path(unit.folder / "started_before")
    if not mark.exists():
        mark.touch()
        time.sleep(float(seconds))
    return 5.0
