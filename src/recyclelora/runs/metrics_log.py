"""``metrics.jsonl``: every point of every curve, always; everything else that shows curves reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recyclelora.system.storage import append_text, write_text

TIMINGS = frozenset({"time", "seconds_per_step", "data_wait_seconds", "data_wait_share", "evaluation_share"})
"""What two runs of one configuration may differ in."""

LATEST = 4e10
"""Seconds since 1970 that a time can be; a later one is a typing error, and MLflow counts milliseconds in 64 bits."""

EVALUATION_SHARE = "evaluation_share"
"""In the point of every evaluation."""
ENDING = "final_"
"""Begins the names of the figures that a run ends with."""
FINAL = f"{ENDING}miou"
"""Prefix of the scores among them."""


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

    def rewind(self, step: int, *, scored: bool = True) -> bool:
        """Drop what a resumed run writes again: points after ``step``, final scores, and a line that was cut off.

        Also the evaluation after ``step`` itself where it is not yet ``scored``.

        Returns:
            whether points up to ``step`` are there; where not, somebody has emptied or removed the file.
        """

        def stays(line: str, point: dict[str, Any]) -> bool:
            again = point["step"] == step and not scored and EVALUATION_SHARE in point
            return point["step"] <= step and not again and f'"{FINAL}/' not in line

        kept: list[str] = []
        if self.path.exists():
            kept = [line for line, point in _read(self.path) if stays(line, point)]
            write_text(self.path, "".join(line + "\n" for line in kept))
        return step == 0 or bool(kept)


def read_points(path: Path) -> list[dict[str, Any]]:
    """Every point of a ``metrics.jsonl``, or of a file like it; none where there is no file.

    A line that is being written, or is damaged, is left out.
    """
    return [point for _, point in _read(path)] if path.exists() else []


def point_of(line: str) -> dict[str, Any] | None:
    """A line of ``metrics.jsonl`` without values that are no numbers; None where it is damaged, or being written."""
    try:
        point = json.loads(line)
        step, stamp = point["step"], float(point["time"])
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    if type(step) is not int or not 0 <= step < 2**63 or not 0 <= stamp < LATEST:
        return None
    return {key: value for key, value in point.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**1000)


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        point = point_of(line)
        if point is not None:
            yield line, point
