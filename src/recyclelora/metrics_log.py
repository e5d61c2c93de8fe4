"""``metrics.jsonl``: every point of every curve, always; everything else that shows curves reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
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
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if step_of(line) <= step and f'"{FINAL}/' not in line]
            write_text(self.path, "".join(line + "\n" for line in kept))


def read_points(path: Path) -> list[dict[str, Any]]:
    """Every point of a ``metrics.jsonl``, without a line that is being written; none where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if step_of(line) != float("inf")]


def step_of(line: str) -> float:
    """The step of a line; infinity for a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return float("inf")
