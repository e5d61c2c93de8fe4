"""The training side: one process for each tracker that is asked for."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from recyclelora.config.training import TrackingConfig
from recyclelora.system.errors import UserError
from recyclelora.system.side_process import SideProcess

KINDS = ("tensorboard", "wandb")
"""Keys of ``tracking``, names of the packages and of this project's extras."""


def asked_for(tracking: TrackingConfig) -> list[str]:
    """The trackers that a run wants.

    Raises:
        UserError: the package of one is not installed.
    """
    kinds = [kind for kind in KINDS if getattr(tracking, kind)]
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise UserError(f"tracking.{kind}=true needs the package {kind}: pip install 'recyclelora[{kind}]'")
    return kinds


class Follower(SideProcess):
    """The process that brings one run to one tracker."""

    def __init__(self, kind: str, run_dir: Path) -> None:
        self.kind = kind
        super().__init__(["recyclelora.tracking.trackers", "follow", kind, str(run_dir)], run_dir / f"{kind}.log")


@contextlib.contextmanager
def followed(run_dir: Path, kinds: Sequence[str], timeout: float = 60.0) -> Iterator[list[Follower]]:
    """Let trackers follow a run while the block runs; wait ``timeout`` seconds for the rest."""
    followers = [Follower(kind, run_dir) for kind in kinds]
    try:
        yield followers
    finally:
        for follower in followers:
            follower.hang_up()  # all at once: they finish beside each other
        deadline = time.monotonic() + timeout
        for follower in followers:
            follower.finish(max(deadline - time.monotonic(), 0.1))
