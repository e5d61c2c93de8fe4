"""What lies in a sweep's ``submitit/``: for each job its script, submitit's files, and which units it is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from recyclelora.sweep.execution import Work
from recyclelora.system.errors import UserError
from recyclelora.system.storage import private, read_json, write_json
from recyclelora.system.typed_json import read_object


class JobUnit(TypedDict):
    """One unit of a job."""

    folder: str
    """relative to ``submitit/``"""
    attempt: int


class JobRecord(TypedDict):
    """``<job>_units.json``."""

    name: str
    units: list[JobUnit]
    timeout_min: NotRequired[int]
    further: NotRequired[int | None]
    """which of the choices comes next where this one does not start; None: it was the last"""
    asked: NotRequired[str]
    """a mark of what it asked for"""


def check_own(root: Path) -> None:
    """Refuse a folder of jobs that another account has begun: its jobs can be neither adopted nor cancelled.

    Raises:
        UserError: naming the folder and what to do instead.
    """
    if root.exists() and not os.access(root, os.W_OK | os.X_OK):
        raise UserError(
            f"{root}: is another account's, and on SLURM a sweep goes on by whoever began it: give yours another name "
            "with study=; reuse=true takes the results that are there"
        )


@dataclass(frozen=True)
class JobFiles:
    """Files of a sweep's jobs."""

    folder: Path
    """of one job, with ``%j`` for its number"""
    _known: dict[str, JobRecord] = field(default_factory=dict, compare=False, repr=False)

    @property
    def root(self) -> Path:
        """The folder above those of single jobs."""
        return next(p for p in (self.folder, *self.folder.parents) if "%" not in str(p))

    @property
    def private(self) -> Path:
        """Where a job's files lie until it has a number; one for each user, since a group may share the folder."""
        return self.root / f".new-{os.getuid()}"

    def of(self, job: str) -> Path:
        """The folder of a job."""
        return Path(str(self.folder).replace("%j", job))

    def make(self) -> None:
        """Make the folders for new jobs, which nobody else can look into."""
        if not self.root.exists():
            private(self.root)
        private(self.private)

    def any_taken(self, asked: str) -> bool:
        """Whether SLURM has taken a job of this sweep before that asked for the same."""
        return any(read_object(path).get("asked", asked) == asked for path in self.root.glob("*/*_units.json"))

    def write(
        self, job: str, name: str, work: Sequence[Work], timeout_min: int, further: int | None, asked: str
    ) -> None:  # fmt: skip
        """Write down which units a new job is."""
        private(self.of(job))
        units = [JobUnit(folder=os.path.relpath(w.folder, self.root), attempt=w.attempt) for w in work]
        write_json(
            self.of(job) / f"{job}_units.json",
            JobRecord(name=name, units=units, timeout_min=timeout_min, further=further, asked=asked),
        )

    def read(self, job: str) -> JobRecord:
        """What is known of a job; no units where its driver was killed before it wrote them down."""
        path = self.of(job) / f"{job}_units.json"
        if job not in self._known and path.exists():
            self._known[job] = read_json(path)
        return self._known.get(job) or JobRecord(name="", units=[])

    def units(self, job: str) -> list[tuple[Path, int]]:
        """Folder and attempt of each unit of a job."""
        units = self.read(job)["units"]
        return [(Path(os.path.normpath(self.root / unit["folder"])), unit["attempt"]) for unit in units]
