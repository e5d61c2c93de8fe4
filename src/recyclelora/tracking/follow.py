"""The process beside training, and the command ``sync``: one way for every tracker."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from pathlib import Path

from recyclelora.config.compose import ConfigError
from recyclelora.system.errors import UserError, first_line
from recyclelora.system.redaction import redacted
from recyclelora.tracking.process import TITLES
from recyclelora.tracking.trackers import Send, sender

POLL = 2.0
"""Seconds between two passes; doubled after each failed one, up to :data:`LONGEST_POLL`."""
LONGEST_POLL = 30.0
LONGEST_LINE, LONGEST_LOOK = 500, 10_000
"""Characters of an error that are shown, and looked at; servers send pages of a megabyte."""


def follow(folder: Path, kind: str = "mlflow") -> bool:
    """Send again and again until standard input closes, then once more; True when everything was sent."""
    os.nice(10)  # training goes first
    send = sender(kind, folder.absolute())
    wait, failures = 0.0, 0
    while not _closed_within(wait):
        failures = 0 if _tried(send, kind, last=False) else failures + 1
        wait = pause(failures)
    return _tried(send, kind, last=True)


def sync(folder: Path, kind: str = "mlflow", to: str | None = None) -> str:
    """Send what a tracker does not have yet of a run, or MLflow of a sweep.

    Args:
        folder: of the run or sweep
        kind: the tracker
        to: address of MLflow, whatever the runs ask for

    Returns:
        where it is now: MLflow's run id, of a sweep the parent's; else the tracker's name.

    Raises:
        UserError: the folder is no run, or a run of it could not be sent.
    """
    if kind == "mlflow":
        from recyclelora.tracking.mlflow.passes import send_all

        return send_all(folder.absolute(), to)
    sender(kind, folder.absolute())(True)
    return kind


def pause(failures: int) -> float:
    """Seconds until the next pass; ``failures`` in a row may be as many as a server's absence of weeks makes."""
    return min(POLL * float(2 ** min(failures, 8)), LONGEST_POLL)


def _closed_within(seconds: float) -> bool:
    """Whether standard input closes within this time."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""


def _tried(send: Send, kind: str, *, last: bool) -> bool:
    try:
        send(last)
    except Exception as error:  # whatever a server or database does, training must not notice
        print(f"{time.strftime('%H:%M:%S')} not sent yet: {explained(error, kind)}", flush=True)
        return False
    return True


def explained(error: Exception, kind: str = "mlflow") -> str:
    """An error of a tracker in one line without passwords."""
    said = re.sub(r"^\(raised as a result of .*\n", "", str(error))  # SQLAlchemy's, before the cause
    text = "".join(c if c.isprintable() else " " for c in first_line(said))
    if isinstance(error, UserError | ConfigError):
        return redacted(text)
    if re.search(r"<(!doctype|html|head|body)\b", str(error)[:LONGEST_LOOK], re.IGNORECASE):
        text = f"a web page came instead of {TITLES.get(kind, kind)}'s answer; is this its address, or a log-in page?"
    elif kind == "mlflow" and isinstance(error, LookupError | AttributeError | TypeError):
        text = f"this is no answer of MLflow: {type(error).__name__}: {text}"
    else:
        text = f"{type(error).__name__}: {text}"
    return redacted(text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}...")
