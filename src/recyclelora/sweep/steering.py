"""What processes of one sweep tell each other through its folder: who drives, whose turn it is, how many trials."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from recyclelora.storage import holder, read_json, taking_turns, write_json

ASK_LOCK = ".ask.lock"
"""Held by the driver that asks for a trial, or looks for trials of dead ones, where several drivers share a study."""
DRIVERS = "drivers"
"""Folder with a lock for each living driver."""
CONTROL = "control.json"
"""A wish for another number of trials, from another shell."""


def driver_name() -> str:
    """This process as a driver: host and process."""
    return f"{os.uname().nodename}-{os.getpid()}"


@contextlib.contextmanager
def alive(sweep: Path, name: str) -> Iterator[None]:
    """Hold a lock that tells other processes that this driver lives."""
    signs = sweep / DRIVERS
    signs.mkdir(exist_ok=True)
    with taking_turns(signs / name):
        yield
    (signs / name).unlink(missing_ok=True)


def lives(sweep: Path, name: str) -> bool:
    """Whether a driver lives."""
    return holder(sweep / DRIVERS, name) is not None


def living(sweep: Path) -> list[str]:
    """Drivers of a sweep that live: process and host."""
    names = (path.name for path in sorted((sweep / DRIVERS).glob("*")) if lives(sweep, path.name))
    return [f"process {process} on {host}" for host, _, process in (name.rpartition("-") for name in names)]


def one_at_a_time(sweep: Path, *, shared: bool) -> contextlib.AbstractContextManager[None]:
    """Drivers of one study ask one after another, so that together they ask for no more than there are."""
    return taking_turns(sweep / ASK_LOCK) if shared else contextlib.nullcontext()


def wish(sweep: Path, n_trials: int) -> None:
    """Ask the drivers of a sweep for another number of trials; 0: no new ones."""
    write_json(sweep / CONTROL, {"n_trials": n_trials})


class Wishes:
    """The wishes that a driver has not obeyed yet.

    Args:
        sweep: the sweep's folder
        shared: several drivers drive it; each leaves the wish there for the others
    """

    def __init__(self, sweep: Path, *, shared: bool) -> None:
        self._path, self._shared = sweep / CONTROL, shared
        self._obeyed = self._written() if shared else None

    def new(self) -> int | None:
        """The number of trials that someone has asked for since the last look."""
        written = self._written()
        if written is None or written == self._obeyed:
            return None
        self._obeyed = written
        n_trials = int(read_json(self._path)["n_trials"])
        if not self._shared:
            self._path.unlink()
        return n_trials

    def _written(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
