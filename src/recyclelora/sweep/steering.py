"""What processes of one sweep tell each other through its folder: who drives, whose turn it is, how many trials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NotRequired, TypedDict

from recyclelora.system.errors import UserError
from recyclelora.system.storage import holder, make_folder, taking_turns, write_json
from recyclelora.system.typed_json import read_record

ASK_LOCK = ".ask.lock"
"""Held by the driver that asks for a trial, or looks for trials of dead ones, where several drivers share a study."""
DRIVERS = "drivers"
"""Folder with a lock for each living driver."""
CONTROL = "control.json"
"""Another number of trials that somebody asks for from another shell."""


@contextlib.contextmanager
def alive(sweep: Path, name: str) -> Iterator[None]:
    """Hold a lock that tells other processes that this driver lives."""
    signs = sweep / DRIVERS
    make_folder(signs)
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


class Request(TypedDict):
    """``control.json``."""

    n_trials: int
    instead_of: NotRequired[int]
    """what the sweep's command asked for then; a command that asks for something else takes the request back"""


def request_trials(sweep: Path, n_trials: int, instead_of: int) -> None:
    """Ask the drivers of a sweep, now and later, for another number of trials; 0: no new ones.

    Args:
        sweep: the sweep's folder
        n_trials: wanted
        instead_of: what its command asks for
    """
    write_json(sweep / CONTROL, {"n_trials": n_trials, "instead_of": instead_of})


class Requests:
    """The requests that a driver has not met yet.

    Args:
        sweep: the sweep's folder
        n_trials: what the driver's own command asks for
    """

    def __init__(self, sweep: Path, n_trials: int) -> None:
        self._path, self._n_trials = sweep / CONTROL, n_trials
        self._seen: int | None = None

    def new(self) -> int | None:
        """The number of trials that someone has asked for since the last look.

        Raises:
            UserError: the request makes no sense; said once.
        """
        try:
            written = self._path.stat().st_mtime_ns
        except OSError:
            return None
        if written == self._seen:
            return None
        first, self._seen = self._seen is None, written
        asked = read_record(self._path, Request)
        if asked["n_trials"] < 0:
            raise UserError(f"{self._path}: n_trials is {asked['n_trials']}, less than 0")
        if first and asked.get("instead_of", self._n_trials) != self._n_trials:
            return None
        return asked["n_trials"]
