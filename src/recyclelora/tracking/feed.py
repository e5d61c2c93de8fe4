"""What is new in a run directory, told to a tracker exactly once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

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

    def picture(self, name: str, step: int, path: Path) -> None:
        """Add a PNG file as it was after ``step`` finished steps."""

    def flush(self) -> None:
        """Everything so far was given: let it be seen, and remember it."""

    def close(self, finished: bool) -> None:
        """Nothing more comes; ``finished`` tells whether the run has its result."""


@dataclass
class Feed:
    """How far a tracker has read a run."""

    run_dir: Path
    steps: dict[str, int] = field(default_factory=dict)
    """name of a curve -> step of its last point that was told"""
    pictures: dict[str, int] = field(default_factory=dict)
    """file name -> time of change, in nanoseconds, of the picture that was shown"""
    offset: int = 0
    """bytes of the file that were read"""
    inode: int = 0
    """of the file that they were read from"""
    file: str = METRICS
    left_out: list[str] = field(default_factory=list)
    """values that are no numbers, in words"""

    def forward(self, tracker: Tracker) -> None:
        """Tell a tracker what it does not have yet; whatever it raises, nothing is lost or told twice."""
        self._points(tracker)
        self._pictures(tracker)
        tracker.flush()

    def points(self) -> Iterator[tuple[int, float, dict[str, float]]]:
        """Step, time and values of the points that were not read before; one is read when the next is asked for."""
        path = self.run_dir / self.file
        if not is_own_file(self.run_dir, path):
            return
        status = path.stat()
        if status.st_ino != self.inode or status.st_size < self.offset:
            self.inode, self.offset = (
                status.st_ino,
                0,
            )  # set back: later points are known by their steps
        with path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written
                text = line.decode(errors="replace")
                point = point_of(text)
                if point is not None:
                    step, time = int(point.pop("step")), float(point.pop("time"))
                    yield step, time, point
                    others = json.loads(text).keys() - {*point, "step", "time"}
                    self.left_out += [f"{name} at step {step} is no number" for name in sorted(others)]
                self.offset += len(line)

    def _points(self, tracker: Tracker) -> None:
        for step, time, point in self.points():
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
