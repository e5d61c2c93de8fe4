"""The training side: one process for each tracker that is asked for; no tracker is imported here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from recyclelora.config.training import TrackingConfig
from recyclelora.runs.unit import Unit
from recyclelora.system.errors import UserError
from recyclelora.system.extras import require
from recyclelora.system.progress import shown
from recyclelora.system.side_process import SideProcess

TITLES = {"mlflow": "MLflow", "tensorboard": "TensorBoard", "wandb": "W&B"}
KINDS = tuple(TITLES)
"""Keys of ``tracking``, names of the packages and of this project's extras."""
NAMED = "MLFLOW_TRACKING_URI"
"""Environment variable: the address that the user has named, and to which credentials may go."""
LAST_WAIT = 60.0
"""Seconds that a run waits at its end for what has not been sent; the rest is left for ``sync``."""


def asked_for(tracking: TrackingConfig) -> list[str]:
    """The trackers that a run wants; a job of a sweep has no MLflow of its own: the driver feeds it.

    Raises:
        UserError: the package of one is not installed.
    """
    kinds = [kind for kind in KINDS if getattr(tracking, kind) and not (kind == "mlflow" and Unit.current())]
    for kind in kinds:
        try:
            require(f"tracking.{kind}=true", kind, kind)
        except UserError as missing:
            raise UserError(f"{missing}, or leave it out with tracking=none") from missing
    return [*kinds, *tracking.trackers]


class Follower(SideProcess):
    """The process that brings one run, or one sweep, to one tracker; its words go to ``<tracker>.log`` in the folder.

    Args:
        kind: the tracker
        folder: of the run or sweep
        uri: address of MLflow, if the user has named one
    """

    def __init__(self, kind: str, folder: Path, uri: str | None = None) -> None:
        self.kind = kind
        self.folder = folder
        named = {} if uri is None else {NAMED: uri}
        super().__init__(
            ["recyclelora.tracking", "follow", str(folder), "--tracker", kind], folder / f"{kind}.log", named
        )

    def unsent(self) -> str:
        """What to do about what is not sent."""
        title, chosen = TITLES.get(self.kind, self.kind), "" if self.kind == "mlflow" else f" --tracker {self.kind}"
        return (
            f"{title} does not have everything (see {self.kind}.log); later: "
            f"recyclelora track sync {shown(self.folder)}{chosen}"
        )


@contextlib.contextmanager
def followed(
    folder: Path, kinds: Sequence[str], uri: str | None = None, timeout: float = LAST_WAIT
) -> Iterator[list[Follower]]:
    """Let trackers follow a run or a sweep while the block runs; wait ``timeout`` seconds for the rest."""
    followers = [Follower(kind, folder, uri) for kind in kinds]
    try:
        yield followers
    finally:
        for follower in followers:
            follower.hang_up()  # all at once: they finish beside each other
        deadline = time.monotonic() + timeout
        for follower in followers:
            follower.finish(max(deadline - time.monotonic(), 0.1))


def send(run_dir: Path, timeout: float = LAST_WAIT) -> str | None:
    """Bring MLflow's record of a finished run up to date, in a process of its own; None, or why that failed."""
    command = [sys.executable, "-m", "recyclelora.tracking", "sync", str(run_dir)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["unknown reason"])[-1]
