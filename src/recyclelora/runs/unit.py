"""A unit: one training run of a trial, seen from the job that runs it.

A trial is one unit, or ``repeats`` of them with different seeds. The job learns its unit's folder from the environment
variable ``RECYCLELORA_UNIT``, writes what it reports there, and looks there for the driver's wish that it stop. This
room knows files only: training imports it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

from recyclelora.system.errors import UserError
from recyclelora.system.storage import make_folder, write_json
from recyclelora.system.typed_json import read_object, read_record

T = TypeVar("T")
_told: set[Path] = set()

VARIABLE = "RECYCLELORA_UNIT"
SLURM_JOB = "SLURM_JOB_ID"
CANCELLED = "cancelled"
"""Why a run is to stop that nobody wants any more."""
CONFIRM = "confirm"
"""Kind of a trial that reruns a good one on fresh seeds; its folders begin with it."""


class AttemptEnd(TypedDict):
    """``outcome.json``: how an attempt ended."""

    attempt: int
    status: Literal["complete", "failed", "pruned", "paused", "interrupted"]
    reason: str | None
    values: NotRequired[list[float] | None]
    traceback: NotRequired[str | None]
    run_dir: NotRequired[str | None]
    seconds: NotRequired[float]
    step: NotRequired[int]
    """of a paused one: after which step"""


class Started(TypedDict):
    """``started.json``: which attempt runs, and where."""

    attempt: int
    job: str
    run_dir: NotRequired[str | None]
    pid: NotRequired[int]
    host: NotRequired[str]


@dataclass(frozen=True)
class Unit:
    """One run of a trial; all its files lie in ``folder``."""

    folder: Path

    @classmethod
    def current(cls) -> Unit | None:
        """The unit that this process runs; None outside a sweep."""
        folder = os.environ.get(VARIABLE)
        return cls(Path(folder)) if folder else None

    # --- what the driver decided --------------------------------------------------------------------------------------

    @property
    def trial(self) -> Path:
        """The trial's folder in the ledger."""
        return self.folder.parent

    @property
    def run_prefix(self) -> str:
        """How the folder of the trial's runs begins: ``trial_0007`` or ``confirm_0007``."""
        return run_prefix(self.trial)

    @property
    def repeated(self) -> bool:
        """Whether the trial has several units, one a seed."""
        about = read_object(self.trial / "trial.json")
        return about["kind"] == CONFIRM or len(about["units"]) > 1

    @property
    def reuses(self) -> bool:
        """Whether the trial may take the result of another sweep's run."""
        path = self.folder.parents[2] / "study.json"
        return path.exists() and bool(read_object(path).get("reuse"))

    @property
    def pauses_at(self) -> int | None:
        """The step after which this run is to pause, if it is to: the driver then decides whether it goes on.

        Of several repeats the first one pauses; the driver may set a later step while it runs.

        Raises:
            UserError: the trial's state cannot be read now.
        """
        path = self.trial / "state.json"
        until = read_object(path).get("until") if self._index == 0 and path.exists() else None
        return until if isinstance(until, int) else None

    @property
    def _index(self) -> int:
        return int(self.folder.name.removeprefix("unit_"))

    def wants(self, attempt: int) -> bool:
        """Whether the driver waits for this attempt: it is the latest, and has not ended yet."""
        try:
            tries = read_object(self.trial / "state.json")["attempts"]
            mine = [a["attempt"] for a in tries if a["unit"] == self._index]
        except (UserError, KeyError, TypeError):  # edited by hand meanwhile; the driver will write it anew
            mine = [attempt]
        return mine[-1:] == [attempt] and not ended(self.folder, attempt)

    def stop_reason(self) -> str | None:
        """Why the driver wants this run to stop: ``pruned`` or ``cancelled``; None when it should go on."""
        return noted(self.folder / "stop.json", "reason", str)

    def ask_to_stop(self, reason: str) -> None:
        """Let the run stop at its next step.

        Args:
            reason: ``pruned`` or ``cancelled``
        """
        write_json(self.folder / "stop.json", {"reason": reason})

    def waits(self, reason: str | None) -> None:
        """Tell those who look why the unit does not run; None: it does. Losing this must not end anything.

        Written by the driver for a job in the queue, and by a job that waits for an earlier one of its unit.
        """
        path = self.folder / "waits.json"
        with contextlib.suppress(OSError):
            if reason is not None:
                path.write_text(json.dumps({"reason": reason, "time": round(time.time(), 1)}), encoding="utf-8")
            else:
                path.unlink(missing_ok=True)

    @property
    def waits_for(self) -> str | None:
        """Why it does not run; None where it does, or nobody has said."""
        return noted(self.folder / "waits.json", "reason", str)

    # --- what the job says --------------------------------------------------------------------------------------------

    def started(self, attempt: int, job: str) -> None:
        """Tell that the job runs, and where."""
        about = {
            "attempt": attempt,
            "job": job,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "time": time.time(),
            "slurm_job": os.environ.get(SLURM_JOB),
            "run_dir": None,
        }
        self._write("started.json", about)
        self.waits(None)

    def runs_in(self, run_dir: Path) -> None:
        """Tell which run directory belongs to this unit."""
        about: Any = read_started(self.folder) or {}
        self._write("started.json", {**about, "run_dir": os.path.relpath(run_dir, self.folder.parents[2])})

    @property
    def runs_as(self) -> str:
        """The attempt that has begun last, and its process, in words."""
        about = read_started(self.folder)
        if about is None:
            return "another process"
        return f"attempt {about['attempt']} (job {about['job']}, process {about.get('pid')} on {about.get('host')})"

    @property
    def run_dir(self) -> Path | None:
        """The run directory, once the run has told it."""
        started = read_started(self.folder)
        name = started.get("run_dir") if started else None
        return None if name is None else self.folder.parents[2] / name

    def report(self, step: int, value: float | None) -> None:
        """Report the objective's value at an evaluation, for pruning."""
        if value is None:
            return
        line = json.dumps({"step": step, "value": value, "time": round(time.time(), 3)})
        try:
            with (self.folder / "reports.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:  # the run is worth more than the pruner's view of it
            print(f"{self.folder}: step {step} is not reported: {error.strerror}", file=sys.stderr, flush=True)

    def progress(self, step: int, of: int, loss: float) -> None:
        """Tell how far training is, for the driver's table; losing this must not end a run."""
        temporary = self.folder / ".progress.tmp"
        text = json.dumps({"step": step, "of": of, "loss": loss, "time": round(time.time(), 1)})
        with contextlib.suppress(OSError):
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.folder / "progress.json")

    def outcome(self, status: str, *, attempt: int, seconds: float, **more: Any) -> None:
        """Write how the attempt ended; the last thing a job does.

        Args:
            status: ``complete``, ``failed``, ``pruned``, ``paused`` or ``interrupted``
            attempt: which of the unit's attempts this was
            seconds: how long it took
            more: ``values``, ``reason``, ``traceback``, ``step``
        """
        run_dir = self.run_dir
        about = {
            "attempt": attempt,
            "status": status,
            "values": None,
            "reason": None,
            "traceback": None,
            "run_dir": None if run_dir is None else os.path.relpath(run_dir, self.folder.parents[2]),
            "seconds": round(seconds, 2),
            "time": round(time.time(), 3),
        }
        self._write("outcome.json", {**about, **more})

    def _write(self, name: str, about: dict[str, Any]) -> None:
        """Write a record, also where somebody has removed the folder meanwhile: finished work is not lost for that."""
        if self.folder.parents[2].exists():  # else the whole sweep was moved away
            make_folder(self.folder)
        write_json(self.folder / name, about)


def run_prefix(trial: Path) -> str:
    """How the folders of a trial's runs begin: ``trial_0007`` or ``confirm_0007``."""
    return trial.name if trial.name.startswith(f"{CONFIRM}_") else f"trial_{trial.name}"


def read_reports(folder: Path) -> list[tuple[int, float]]:
    """(step, value) of every complete line that a unit has reported, the last of each step."""
    try:
        lines = (folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found: dict[int, float] = {}
    for line in lines:
        try:
            point = json.loads(line)
            found[int(point["step"])] = float(point["value"])
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a kill, or being written
    return sorted(found.items())


def ended(folder: Path, attempt: int) -> bool:
    """Whether an attempt at a unit has its outcome, or needs none: an earlier one, given up too soon, has finished."""
    outcome = read_outcome(folder)
    return outcome is not None and settles(outcome, attempt)


def settles(outcome: AttemptEnd, attempt: int) -> bool:
    """Whether an outcome is that of an attempt, or the late success of another, which makes it needless."""
    return outcome["attempt"] == attempt or outcome["status"] in ("complete", "pruned")


def began(folder: Path, attempt: int) -> bool:
    """Whether an attempt at a unit got as far as the unit itself."""
    started = read_started(folder)
    return started is not None and started["attempt"] == attempt


def read_outcome(folder: Path) -> AttemptEnd | None:
    """How an attempt at a unit ended; None where none has said so, or its record is no longer what was written."""
    return _read(folder / "outcome.json", AttemptEnd)


def read_started(folder: Path) -> Started | None:
    """Which attempt of a unit runs; None where none does, or its record is no longer what was written."""
    return _read(folder / "started.json", Started)


def _read(path: Path, schema: type[T]) -> T | None:
    try:
        return read_record(path, schema) if path.exists() else None
    except UserError as error:
        if path not in _told:
            print(f"{error}; it counts as missing", file=sys.stderr, flush=True)
        _told.add(path)
        return None


def noted(path: Path, key: str, kind: Callable[[Any], T]) -> T | None:
    """A value of a small note; None where there is none, or it is just being written."""
    try:
        return kind(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, LookupError, TypeError):
        return None
