"""``tracking.trackers=[csv]``: every point of every run as a line of ``points.csv`` beside the runs."""

from __future__ import annotations

import csv
from pathlib import Path

from recyclelora.tracking.feed import Feed

HEADER = ["run", "step", "name", "value"]


class CsvTracker:
    """One run; what the file has of it already is not written again.

    It runs in a process of its own, and whatever it raises is tried again two seconds later: nothing is lost or told
    twice, and training does not notice.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run = run_dir.name
        self.path = run_dir.parent / "points.csv"
        self.lines: list[list[object]] = []
        self.feed = Feed(run_dir, steps=self._known())

    def point(self, step: int, time: float, values: dict[str, float]) -> None:
        """Keep the values until they are written together."""
        self.lines += [[self.run, step, name, value] for name, value in values.items()]

    def picture(self, name: str, step: int, path: Path) -> None:
        """A table shows no pictures."""

    def flush(self) -> None:
        """Append what has come."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([HEADER] * new + self.lines)
        self.lines.clear()

    def close(self, finished: bool) -> None:
        """Nothing is open."""

    def _known(self) -> dict[str, int]:
        if not self.path.exists():
            return {}
        with self.path.open(newline="") as file:
            return {row["name"]: int(row["step"]) for row in csv.DictReader(file) if row["run"] == self.run}
