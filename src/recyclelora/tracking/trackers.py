"""Name of a tracker -> what sends one pass of a run to it; trackers of installed packages are found by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recyclelora.config.training import TRACKER_GROUP
from recyclelora.runs.directory import is_finished
from recyclelora.system.errors import some
from recyclelora.system.plugins import plugins
from recyclelora.tracking.feed import Tracker
from recyclelora.tracking.process import KINDS

Send = Callable[[bool], None]
"""send(last): one pass; ``last`` when nothing more comes."""


def sender(kind: str, folder: Path) -> Send:
    """What sends one pass of a run, or to MLflow also of a sweep.

    Raises:
        UserError: no such tracker, or the package that brings it is broken.
    """
    if kind == "mlflow":
        from recyclelora.tracking.mlflow.passes import passes

        return passes(folder)
    tracker: Tracker | None = None

    def send(last: bool) -> None:
        nonlocal tracker
        tracker = tracker or open_tracker(kind, folder)
        tracker.feed.forward(tracker)
        if last:
            tracker.close(is_finished(folder))
            announce(tracker.feed.left_out)

    return send


def open_tracker(kind: str, run_dir: Path) -> Tracker:
    """The tracker of one run; imports its package."""
    if kind == "tensorboard":
        from recyclelora.tracking.tensorboard import TensorBoard

        return TensorBoard(run_dir)
    if kind == "wandb":
        from recyclelora.tracking.wandb import WeightsAndBiases

        return WeightsAndBiases(run_dir)
    opened: Tracker = plugins(TRACKER_GROUP, KINDS)[kind](run_dir)
    return opened


def announce(left_out: list[str]) -> None:
    """Say in one line what was not told: values that no chart can show."""
    if left_out:
        print(f"left out, as no chart can show it: {some(left_out, 3, '; ')}", flush=True)
