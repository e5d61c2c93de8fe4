"""``metrics.jsonl``: every point of every curve, always; everything else that shows curves reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recyclelora.storage import append_text, write_text

TIMINGS = frozenset({"time", "seconds_per_step", "data_wait_seconds", "data_wait_share", "evaluation_share"})
"""What two runs of one configuration may differ in."""

FINAL = "final_miou"
"""Prefix of the scores that a run ends with."""


def total_loss(values: Mapping[str, float]) -> float | None:
    """What a step minimises: the sum of its named losses; None for a point without any, such as a score."""
    losses = [value for name, value in values.items() if name.startswith("loss")]
    return sum(losses) if losses else None


class MetricsLog:
    """``metrics.jsonl``: one line a point, ``{"step": ..., "time": ..., name: value, ...}``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add one point after ``step`` finished steps."""
        append_text(self.path, json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")

    def rewind(self, step: int) -> None:
        """Drop what a resumed run writes again: points after ``step``, final scores, and a line that was cut off."""
        if self.path.exists():
            kept = [line for line, point in _read(self.path) if point["step"] <= step and f'"{FINAL}/' not in line]
            write_text(self.path, "".join(line + "\n" for line in kept))


def read_points(path: Path) -> list[dict[str, Any]]:
    """Every point of a ``metrics.jsonl``, or of a file like it; none where there is no file.

    A line that is being written, or is damaged, is left out.
    """
    return [point for _, point in _read(path)] if path.exists() else []


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            point = json.loads(line)
        except ValueError:
            continue
        if (
            isinstance(point, dict)
            and isinstance(point.get("step"), int)
            and isinstance(point.get("time"), int | float)
        ):
            yield line, point
