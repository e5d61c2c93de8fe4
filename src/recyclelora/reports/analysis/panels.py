"""Lines that several figures share: over the blocks, by layer type, and one line for each block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from recyclelora.adapters.changes import INIT, TRAINED, UPDATE
from recyclelora.drawing import style
from recyclelora.reports.analysis.tables import Row, distinct, select

STAGE_WORDS = {INIT: "start", TRAINED: "trained", UPDATE: "update"}


def every_panel(rows: Sequence[Any], columns: Sequence[Any]) -> list[tuple[tuple[int, Any], tuple[int, Any]]]:
    """Every pair of a numbered row and a numbered column."""
    return [(row, column) for row in enumerate(rows) for column in enumerate(columns)]


def block_numbers(rows: list[Row]) -> list[int]:
    """The numbers of all blocks, ascending."""
    return sorted(block for block in distinct(rows, "block") if block is not None)


def over_blocks(axis: Any, rows: list[Row], colour: str, label: str, *, dashed: bool = False) -> None:
    """One line over the blocks; nothing where no value is defined."""
    points = [(row.block, row.value) for row in rows if row.block is not None]
    if any(math.isfinite(value) for _, value in points):
        look = {"ls": (0, (2, 2)), "zorder": 3} if dashed else {"marker": "o", "ms": 2.5}
        axis.plot(*zip(*points, strict=True), color=colour, lw=1.8, label=label, **look)
        style.whole_numbers(axis)


def lines_by_type(axis: Any, rows: list[Row], factor: float = 1.0) -> None:
    """One line over the blocks for each layer type."""
    for index, kind in enumerate(distinct(rows, "type")):
        points = [(row.block, factor * row.value) for row in select(rows, type=kind) if row.block is not None]
        look = {"color": style.PALETTE[index % 7], "marker": style.MARKERS[index % 7]}
        axis.plot(*zip(*points, strict=True), lw=1.6, ms=4, label=kind, **look)
    style.whole_numbers(axis)


def by_block(axis: Any, rows: list[Row], blocks: list[int], marker: str = "") -> None:
    """One line for each block over the index, its colour the depth."""
    import matplotlib as mpl

    lines: dict[int, list[tuple[int, float]]] = {block: [] for block in blocks}
    for row in rows:
        if row.block is not None and row.index is not None:
            lines[row.block].append((row.index + 1, row.value))
    for block, points in lines.items():
        if points:
            depth = (block - blocks[0]) / max(1, blocks[-1] - blocks[0])
            colour = mpl.colormaps["viridis"](0.92 * depth)
            axis.plot(*zip(*points, strict=True), color=colour, lw=1.0, marker=marker, ms=3)


def block_bar(figure: Any, axes: Any, blocks: list[int]) -> None:
    """The colour bar that goes with `by_block`."""
    if not blocks:
        return
    import matplotlib as mpl

    scale = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 256)))
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(blocks[0], max(blocks[-1], blocks[0] + 1)), scale)
    style.colour_bar(figure, shades, axes, "block", shrink=0.6)
