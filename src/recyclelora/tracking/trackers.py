"""``python -m recyclelora.trackers sync <tensorboard or wandb> <run dir>...``: bring runs to a tracker, also later."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from recyclelora.runs.directory import is_finished
from recyclelora.system.errors import UserError
from recyclelora.tracking.feed import Tracker
from recyclelora.tracking.process import KINDS

POLL_SECONDS = 2.0


def open_tracker(kind: str, run_dir: Path) -> Tracker:
    """The tracker of one run; imports its package."""
    if kind == "tensorboard":
        from recyclelora.tracking.tensorboard import TensorBoard

        return TensorBoard(run_dir)
    from recyclelora.tracking.wandb import WeightsAndBiases

    return WeightsAndBiases(run_dir)


def sync(kind: str, run_dir: Path) -> None:
    """Bring a run as it is to a tracker."""
    tracker = open_tracker(kind, run_dir)
    tracker.feed.forward(tracker)
    tracker.close(is_finished(run_dir))


def follow(kind: str, run_dir: Path) -> bool:
    """Forward again and again until standard input closes, then once more; True when nothing is left."""
    os.set_blocking(sys.stdin.fileno(), False)
    tracker: Tracker | None = None
    while True:
        last = sys.stdin.buffer.read(1) == b""
        done = False
        try:
            tracker = tracker or open_tracker(kind, run_dir)
            tracker.feed.forward(tracker)
            if last:
                tracker.close(is_finished(run_dir))
            done = True
        except Exception as error:  # whatever a tracker does, training must not notice
            print(f"{time.strftime('%H:%M:%S')} not sent yet: {type(error).__name__}: {error}", flush=True)
        if last:
            return done
        time.sleep(POLL_SECONDS)


def main() -> None:
    """``follow`` a run that trains, or ``sync`` runs as they are."""
    parser = argparse.ArgumentParser(prog="python -m recyclelora.trackers", description=main.__doc__)
    parser.add_argument("action", choices=("follow", "sync"))
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("run_dirs", nargs="+", type=Path)
    arguments = parser.parse_args()
    if arguments.action == "follow":
        sys.exit(0 if follow(arguments.kind, arguments.run_dirs[0].absolute()) else 1)
    failed = False
    for run_dir in arguments.run_dirs:
        try:
            sync(arguments.kind, run_dir.absolute())
            print(f"{run_dir}: sent to {arguments.kind}")
        except (UserError, ValueError, ImportError, OSError) as error:
            failed = True
            print(f"sync: {run_dir}: {(str(error).splitlines() or [type(error).__name__])[0]}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
