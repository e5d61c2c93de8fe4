"""What is new in a run directory, told to a tracker exactly once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from recyclelora.runs.directory import FIGURES, METRICS
from recyclelora.runs.metrics_log import point_of
from recyclelora.system.storage import is_own_file

PICTURE_OF_STEP = re.compile(r"(?P<name>.+)_step_(?P<step>\d+)")


class Tracker(Protocol):
    """Where points and pictures go."""

    feed: Feed
    """what it has; a tracker that cannot start over begins with what earlier launches sent"""

    def point(self, step: int, time: float, values: dict[str, float]) -> None:
        """Add values after ``step`` finished steps, at ``time`` in seconds since 1970."""
        ...

    def picture(self, name: str, step: int, path: Path) -> None:
        """Add a PNG file as it was after ``step`` finished steps."""
        ...

    def flush(self) -> None:
        """Everything so far was given: let it be seen, and remember it."""
        ...

    def close(self, finished: bool) -> None:
        """Nothing more comes; ``finished`` tells whether the run has its result."""
        ...


@dataclass
class Feed:
    """How far a tracker has read a run."""

    run_dir: Path
    steps: dict[str, int] = field(default_factory=dict)
    """name of a curve -> step of its last point that was told"""
    pictures: dict[str, int] = field(default_factory=dict)
    """file name -> time of change, in nanoseconds, of the picture that was shown"""
    offset: int = 0
    """bytes of ``metrics.jsonl`` that were read"""

    def forward(self, tracker: Tracker) -> None:
        """Tell a tracker what it does not have yet; whatever it raises, nothing is lost or told twice."""
        self._points(tracker)
        self._pictures(tracker)
        tracker.flush()

    def _points(self, tracker: Tracker) -> None:
        path = self.run_dir / METRICS
        if not is_own_file(self.run_dir, path):
            return
        if path.stat().st_size < self.offset:  # set back to a checkpoint: later points are known by their steps
            self.offset = 0
        with path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                point = point_of(line.decode(errors="replace"))
                if point is not None:
                    self._point(tracker, point)
                self.offset += len(line)

    def _point(self, tracker: Tracker, point: dict[str, Any]) -> None:
        step, time = int(point.pop("step")), float(point.pop("time"))
        new = {name: value for name, value in point.items() if step > self.steps.get(name, -1)}
        if new:
            tracker.point(step, time, new)
            self.steps |= dict.fromkeys(new, step)

    def _pictures(self, tracker: Tracker) -> None:
        """Pictures of a step go by its number, the others by the step that was reached."""
        reached = max(self.steps.values(), default=0)
        for path in sorted((self.run_dir / FIGURES).glob("*.png")):
            if not is_own_file(self.run_dir, path):
                continue
            changed = path.stat().st_mtime_ns
            if self.pictures.get(path.name) != changed:
                found = PICTURE_OF_STEP.fullmatch(path.stem)
                name, step = (found["name"], int(found["step"])) if found else (path.stem, reached)
                tracker.picture(f"{FIGURES}/{name}", step, path)
                self.pictures[path.name] = changed
