"""The training side: start the process that feeds MLflow, and let it finish."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from recyclelora.runs.mailbox import Unit
from recyclelora.system.side_process import SideProcess

LOG = "mlflow.log"
NAMED = "MLFLOW_TRACKING_URI"
"""Environment variable: the address that the user has named, and to which credentials may go."""
LAST_WAIT = 60.0
"""Seconds that a run waits at its end for what has not been sent; the rest is left for ``sync``."""


@contextlib.contextmanager
def mirrored(run_dir: Path, enabled: bool, uri: str | None = None) -> Iterator[Feeder | None]:
    """Mirror a run into MLflow, at ``uri`` if the user has named one, while the block runs; wait a bounded time then.

    A job of a sweep only writes files: its driver feeds MLflow.
    """
    with _fed(run_dir, enabled and Unit.current() is None, uri) as feeder:
        yield feeder


@contextlib.contextmanager
def mirrored_sweep(sweep_dir: Path, enabled: bool, uri: str | None = None) -> Iterator[Feeder | None]:
    """Mirror all runs of a sweep into MLflow, from one process, while the block runs."""
    with _fed(sweep_dir, enabled, uri) as feeder:
        yield feeder


@contextlib.contextmanager
def _fed(folder: Path, enabled: bool, uri: str | None) -> Iterator[Feeder | None]:
    if not enabled:
        yield None
        return
    feeder = Feeder(folder, uri)
    try:
        yield feeder
    finally:
        feeder.finish()


class Feeder(SideProcess):
    """The process that mirrors a run or a sweep; its words go to ``mlflow.log`` in the directory."""

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        named = {} if uri is None else {NAMED: uri}
        super().__init__(["recyclelora.tracking", "follow", str(folder)], folder / LOG, named)

    def finish(self, timeout: float = LAST_WAIT) -> bool:
        """Tell the process that nothing more comes; False when it has not sent everything in time."""
        return super().finish(timeout)


def send(run_dir: Path, timeout: float = LAST_WAIT) -> str | None:
    """Bring the record of a finished run up to date, from a process of its own; None, or why that failed."""
    command = [sys.executable, "-m", "recyclelora.tracking", "sync", str(run_dir)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["unknown reason"])[-1]
