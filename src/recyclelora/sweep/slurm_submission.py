"""What a submission to SLURM needs, of a trial or of the driver: environment, private folder, readable errors."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXPORTED = (
    "PATH", "PYTHONPATH", "RECYCLELORA_HOME", "RECYCLELORA_SNAPSHOT", "RECYCLELORA_CACHE", "DATA_ROOT", "SLURM_CONF",
)  # fmt: skip
"""Variables that jobs need where a site's sbatch passes none on; no secrets, for scripts are readable."""


def exports() -> list[str]:
    """Shell lines that give a job this process's environment, so that srun passes it on to the trial."""
    unset = ["unset SLURM_EXPORT_ENV"]
    return unset + [f"export {name}={shlex.quote(os.environ[name])}" for name in EXPORTED if name in os.environ]


@contextmanager
def outer_job_hidden() -> Iterator[None]:
    """Submit as from a login node: a driver that is itself a job has variables that speak of it, not of its trials."""
    outer = {
        key: value
        for key, value in os.environ.items()
        if key.startswith(("SLURM_", "SLURMD_", "SUBMITIT_", "SRUN_")) and key != "SLURM_CONF"
    }
    for key in outer:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(outer)


def private(folder: Path) -> None:
    """A folder that only this user can look into: submitit's pickles are code."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def first_line(error: object) -> str:
    """What a command of SLURM says, in one line."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in str(error).strip().splitlines()]
    return "; ".join(line for line in lines if line) or "no reason given"
