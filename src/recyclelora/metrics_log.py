"""``metrics.jsonl``: every point of every curve, always; everything else that shows curves reads it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from recyclelora.storage import write_text


class MetricsLog:
    """``metrics.jsonl``: one line a point, ``{"step": ..., "time": ..., name: value, ...}``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add one point after ``step`` finished steps."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the points after ``step``, which a resumed run computes again, and a last line that was cut off."""
        if self.path.exists():
            kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if step_of(line) <= step]
            write_text(self.path, "".join(line + "\n" for line in kept))


def step_of(line: str) -> float:
    """The step of a line; infinity for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
