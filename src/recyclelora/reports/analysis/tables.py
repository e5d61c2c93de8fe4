"""Measurements as rows: tidy CSV files, means and maxima."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from recyclelora.system.storage import write_text


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        layer: such as ``blocks.3.attn.qkv``; ``level_0`` .. ``level_3`` for features.
        block: 0-based number of the block.
        type: of the layer: qkv, proj, fc1, fc2, ...
        branch: main, sub, ``main-sub`` for a pair, ``all`` for the sum; the image's name for features.
        stage: init, trained or update.
        quantity: what was measured.
        value: NaN where it is undefined.
        index: 0-based, of a singular value, an angle or a step of a curve.
    """

    layer: str
    block: int | None
    type: str
    branch: str
    stage: str
    quantity: str
    value: float
    index: int | None = None


Tables = dict[str, list[Row]]
"""File name without suffix -> its rows."""

COLUMNS = tuple(field.name for field in fields(Row))


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose columns have the wanted values, such as ``quantity="effective_rank", stage="trained"``."""
    return [row for row in rows if all(getattr(row, column) == value for column, value in wanted.items())]


def distinct(rows: Iterable[Row], column: str) -> list[Any]:
    """The values of a column in the order of their first appearance."""
    return list(dict.fromkeys(getattr(row, column) for row in rows))


def mean(values: Iterable[float]) -> float:
    """Plain mean of what is defined; NaN without any."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def mean_by(rows: Iterable[Row], column: str) -> dict[Any, float]:
    """Mean value for each value of a column."""
    groups: dict[Any, list[float]] = {}
    for row in rows:
        groups.setdefault(getattr(row, column), []).append(row.value)
    return {key: mean(values) for key, values in groups.items()}


def write_csv(path: Path, runs: Mapping[str, Sequence[Row]], *, with_run: bool) -> None:
    """Write rows; ``with_run`` puts the run's label before each. An undefined value is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", *COLUMNS) if with_run else COLUMNS)
    for label, rows in runs.items():
        for row in rows:
            cells = ["" if value is None or value != value else value for value in astuple(row)]
            writer.writerow([label, *cells] if with_run else cells)
    write_text(path, text.getvalue())


def scalar_means(tables: Tables) -> dict[str, dict[str, Any]]:
    """``<quantity>/<branch>/<stage>`` -> mean, max, and means by type and by block, of all that is no curve."""
    groups: dict[str, list[Row]] = {}
    for rows in tables.values():
        for row in rows:
            if row.index is None:
                groups.setdefault(f"{row.quantity}/{row.branch}/{row.stage}", []).append(row)
    return {name: _statistics(rows) for name, rows in groups.items() if math.isfinite(mean(r.value for r in rows))}


def _statistics(rows: list[Row]) -> dict[str, Any]:
    finite = [row for row in rows if math.isfinite(row.value)]
    return {
        "mean": mean(row.value for row in finite),
        "max": max(row.value for row in finite),
        "by_type": mean_by(finite, "type"),
        "by_block": {str(block): value for block, value in mean_by(finite, "block").items() if block is not None},
    }
