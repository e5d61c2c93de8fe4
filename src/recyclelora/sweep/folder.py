"""A sweep's folder before its driver works there: who chose it, whose it is, and what of it still runs."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from recyclelora.config.option_files import TRUSTED, place_chosen_by
from recyclelora.sweep import snapshot
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.record import read_study
from recyclelora.sweep.slurm.queue import look
from recyclelora.sweep.steering import living
from recyclelora.system import storage
from recyclelora.system.errors import UserError
from recyclelora.system.storage import holder, locked, set_aside

OURS = ("study.json", "ledger", snapshot.ARCHIVE, snapshot.FOLDER)
"""A folder with one of these is a sweep's."""

DRIVER_LOCK = ".driver.lock"
"""In the sweep's folder: held by its driver."""


def own_place(folder: Path) -> None:
    """Make sure that the user, and no file of somebody else's, chose the folder whose code is about to run.

    Raises:
        UserError: naming the file that chose it.
    """
    if not snapshot.is_running(folder) and (file := place_chosen_by()) is not None and not snapshot.is_noted(folder):
        raise UserError(
            f"{folder}: has code of its own in {snapshot.kept(folder).name}, and {file} chose this folder; if both are "
            f"yours, give output_dir= on the command line, or export {TRUSTED}={file}"
        )


def began(folder: Path) -> str:
    """When the sweep in a folder began; empty where there is none, or nobody can say."""
    try:
        about = read_study(folder)
    except UserError:
        return ""
    return about["created"] if about else ""


def make_folder(folder: Path, *, fresh: bool) -> bool:
    """Make it; returns whether an earlier sweep was set aside.

    Raises:
        UserError: it cannot be made, or what is there is no sweep, or one that runs.
    """
    aside = fresh and folder.exists() and os.environ.get(snapshot.VARIABLE) is None
    if aside:
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
        if visible and not any((folder / name).exists() for name in OURS):
            raise UserError(f"{folder}: is no sweep of this project, so fresh=true leaves it alone; choose another one")
        if running := busy(folder):
            raise UserError(
                f"{folder}: in use by {', '.join(running[:3])}; stop it first: recyclelora sweep cancel ..."
            )
        with only_driver(folder):
            set_aside(folder)
    storage.make_folder(folder, "; set output_dir")
    return aside


def only_driver(folder: Path, shared: bool = False) -> contextlib.AbstractContextManager[None]:
    """Hold the sweep's folder, unless several drivers may share the study."""
    hint = "; several drivers of one study need hydra.sweeper.storage=postgresql://..."
    return contextlib.nullcontext() if shared else locked(folder, DRIVER_LOCK, hint)


def busy(sweep: Path) -> list[str]:
    """What of a sweep still runs, in words: drivers, units and runs by their locks, jobs by the queue."""
    found = living(sweep)
    held = [*sorted(sweep.glob("ledger/*/unit_*")), *sorted(sweep.glob("*_*-*")), *sorted(sweep.glob("*_*-*/seed_*"))]
    found += [f"{folder.relative_to(sweep)}: {who}" for folder in held if (who := holder(folder)) is not None]
    jobs = {
        attempt.job: trial.folder.name
        for trial in Ledger(sweep).trials()
        for attempt in trial.attempts
        if attempt.ended is None and not trial.ended and attempt.job.split("_")[0].isdigit()
    }
    if jobs and shutil.which("squeue") is not None:
        states = look(list(jobs)) or {}
        found += [f"SLURM job {job} of trial {jobs[job]}" for job, state in states.items() if not state.ended]
    return found
