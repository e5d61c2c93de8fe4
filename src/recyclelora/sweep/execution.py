"""What every way of running units has in common: the driver submits, looks, waits and cancels."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE)
"""Signals that say nothing about the trial: most often from a machine without memory, or, SIGPIPE, from the loss of
what reads its output; a crash of the trial's own is another."""


@dataclass(frozen=True)
class Work:
    """One unit to run."""

    number: int
    """of the trial"""
    folder: Path
    """of the unit"""
    attempt: int
    overrides: list[str]


@dataclass(frozen=True)
class Job:
    """What an executor has made of some units."""

    name: str
    """outlives the driver"""
    units: int = 1
    """how many it takes"""
    gpus: float = 1
    """of each of them"""


class NotNow(Exception):
    """A submission that may succeed later; nothing of it is left that would run. Its text says why."""


class Stage(Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"


@dataclass(frozen=True)
class Status:
    """What an executor knows of a job.

    A job that is ``GONE`` has written its units' ``outcome.json``, or never will: then ``reason`` says what happened
    and ``node_fault`` whether the node and not the trial was at fault.
    """

    stage: Stage
    reason: str | None = None
    node_fault: bool = False
    stuck: bool = False
    """of a job that is queued: it will not start unless a person does what ``reason`` says"""
    news: bool = False
    """of a job that is queued: its ``reason`` is worth a line of the log, though it passes by itself"""
    excused: bool = False
    """of a job that is gone: its end is certain to say nothing about the trial, and is not counted as a try"""


class Executor(Protocol):
    """Runs units somewhere."""

    @property
    def capacity(self) -> int:
        """How many units may be submitted at the same time."""

    @property
    def units_at_once(self) -> int:
        """How many units one submission takes, at most."""

    def submit(self, work: Sequence[Work]) -> list[Job]:
        """Start jobs for the first of up to ``units_at_once`` units, at least for one."""

    def status(self, jobs: Collection[str]) -> dict[str, Status]:
        """Look at jobs, also at those that an earlier driver submitted."""

    def wait(self, seconds: float) -> None:
        """Return when a job may have ended, or after ``seconds``."""

    def cancel(self, jobs: Collection[str]) -> None:
        """End jobs; what training can still save, it saves."""

    def close(self) -> None:
        """Let go of what this process holds; jobs that can live without it live on."""
