"""The figures of one run's branches: their subspaces, their vectors and the columns of A."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from recyclelora.adapters.changes import INIT, TRAINED, UPDATE
from recyclelora.drawing import style
from recyclelora.reports.analysis.measure import SIDES, Measured
from recyclelora.reports.analysis.panels import (
    STAGE_WORDS,
    block_bar,
    block_numbers,
    by_block,
    every_panel,
    lines_by_type,
    over_blocks,
)
from recyclelora.reports.analysis.tables import Row, distinct, mean, mean_by, select


def main_sub_similarity(rows: list[Row], path: Path, label: str) -> None:
    """Grassmann similarity of two branches over the blocks."""
    types = distinct(rows, "type")
    title = "Grassmann similarity of main and sub adapter"
    figure, axes = style.grid(2, len(types), title, label, sharex=True, sharey="row")
    for (r, side), (c, kind) in every_panel(list(SIDES), types):
        axis, part = axes[r, c], select(rows, type=kind)
        for stage in (INIT, TRAINED):
            line = select(part, quantity=f"grassmann_{side}", stage=stage)
            over_blocks(axis, line, style.STAGE_COLOURS[stage], STAGE_WORDS[stage], dashed=stage == INIT)
        now = mean(row.value for row in line)
        chance = mean(row.value for row in select(part, quantity=f"grassmann_{side}_random"))
        axis.axhline(chance, color="black", lw=1.2, ls=":", label="two random subspaces")
        style.heading(axis, kind, f"trained {now:.2g}, random {chance:.2g}")
    for row, side in zip(axes, SIDES, strict=True):
        values = [r.value for r in rows if r.quantity in (f"grassmann_{side}", f"grassmann_{side}_random")]
        row[0].set_ylim(0, 1.1 * max(filter(math.isfinite, values)))
    style.label_grid(axes, "block", [f"similarity\n{style.SIDE_LABELS[side]}" for side in SIDES])
    style.save(figure, path, axes)


def similarity_to_start(rows: list[Row], path: Path, label: str) -> None:
    """How much of its first subspace each branch still spans."""
    branches = [branch for branch in distinct(rows, "branch") if "-" not in branch]
    sides = [s for s in SIDES if any(math.isfinite(r.value) for r in select(rows, quantity=f"grassmann_{s}_to_start"))]
    title = "Grassmann similarity of each adapter with its own start"
    figure, axes = style.grid(len(sides), len(branches), title, label, (4.6, 2.7), sharex=True, sharey=True)
    for (r, side), (c, branch) in every_panel(sides, branches):
        lines_by_type(axes[r, c], select(rows, quantity=f"grassmann_{side}_to_start", branch=branch))
        style.heading(axes[r, c], branch)
        axes[r, c].ticklabel_format(axis="y", useOffset=False)
    style.label_grid(axes, "block", [f"similarity\n{style.SIDE_LABELS[side]}" for side in sides])
    style.save(figure, path, axes)


def principal_angles(rows: list[Row], path: Path, label: str) -> None:
    """Principal angles of two branches, smallest first, one line a block."""
    types = distinct(rows, "type")
    title = "Principal angles between main and sub adapter"
    figure, axes = style.grid(2, len(types), title, label, sharex=True, sharey=True)
    for (r, side), (c, kind) in every_panel(list(SIDES), types):
        axis, part = axes[r, c], select(rows, type=kind, quantity=f"angle_{side}")
        by_block(axis, select(part, stage=TRAINED), block_numbers(rows), marker="o")
        start = mean_by(select(part, stage=INIT), "index")
        axis.plot([i + 1 for i in start], list(start.values()), "--", color="black", lw=1.3, label="start, mean")
        smallest = min(row.value for row in select(part, stage=TRAINED))
        style.heading(axis, kind, f"smallest after training {smallest:.1f}°")
        axis.set_ylim(0, 95)
        axis.set_yticks([0, 30, 60, 90])
        style.whole_numbers(axis)
    style.label_grid(axes, "index of the angle", [f"angle (°)\n{style.SIDE_LABELS[side]}" for side in SIDES])
    block_bar(figure, axes, block_numbers(rows))
    style.save(figure, path, axes)


def column_norms(rows: list[Row], path: Path, label: str) -> None:
    """Ratio of A's column norms at the initialised positions to those elsewhere."""
    branches = distinct(rows, "branch")
    names = {TRAINED: "columns of $A$", UPDATE: "columns of $A - A_0$"}
    title = "Column norms of A: mean at the initialised positions / mean elsewhere"
    figure, axes = style.grid(2, len(branches), title, label, (4.6, 2.7), sharex=True)
    for (r, stage), (c, branch) in every_panel(list(names), branches):
        axis, part = axes[r, c], select(rows, branch=branch, stage=stage, quantity="column_norm_ratio")
        lines_by_type(axis, part)
        values = [row.value for row in part if math.isfinite(row.value)]
        axis.axhline(1, color="black", lw=1.2, ls=":", label="no difference")
        if values:
            style.heading(axis, f"{branch}: mean {_ratio(mean(values))}, max {_ratio(max(values))}")
            if max(values) > 20:
                axis.set_yscale("log")
                axis.set_ylim(0.7, 2 * max(values))
    style.label_grid(axes, "block", [f"ratio of mean norms\n{text}" for text in names.values()])
    style.save(figure, path, axes)


def cosine_maps(measured: Measured, side: str, path: Path, label: str) -> None:
    """Cosines between all adapter vectors of a few layers; lines mark where the next branch begins."""
    layers = {(row.block, row.type): row.layer for row in measured.tables["rank"] if row.layer in measured.cosines}
    shown, types = (list(dict.fromkeys(keys)) for keys in zip(*layers, strict=True))
    what = "columns of B" if side == "b" else "rows of A"
    title = f"Cosines between the {what} after training"
    figure, axes = style.grid(len(shown), len(types), title, label, (2.9, 2.9))
    maps = {key: getattr(measured.cosines[layer], side).cpu().numpy() for key, layer in layers.items()}
    limit = _off_diagonal(list(maps.values()))
    picture = None
    for (r, block), (c, kind) in every_panel(shown, types):
        axis = axes[r, c]
        axis.grid(False)
        if (block, kind) not in maps:
            axis.set_axis_off()
            continue
        picture = axis.imshow(maps[block, kind], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        _mark_branches(axis, measured.cosines[layers[block, kind]].ranks)
        style.heading(axis, f"block {block} · {kind}")
    style.colour_bar(figure, picture, axes, "cosine (1 on the diagonal)", shrink=0.6, extend="both")
    style.save(figure, path)


# --- parts ------------------------------------------------------------------------------------------------------------


def _ratio(value: float) -> str:
    return f"{value:,.0f}×" if value > 100 else f"{value:.2f}×"


def _off_diagonal(maps: list[np.ndarray]) -> float:
    """A colour limit that nearly all cosines of different vectors stay below."""
    others = np.concatenate([np.abs(m[~np.eye(len(m), dtype=bool)]) for m in maps])
    others = others[np.isfinite(others)]
    return float(min(1.0, max(0.01, np.quantile(others, 0.995)))) if len(others) else 1.0


def _mark_branches(axis: Any, ranks: dict[str, int]) -> None:
    """Lines between the branches and their names along both axes."""
    ends = np.cumsum([0, *ranks.values()])
    for end in ends[1:-1]:
        axis.axhline(end - 0.5, color="black", lw=1.2)
        axis.axvline(end - 0.5, color="black", lw=1.2)
    middles = (ends[:-1] + ends[1:] - 1) / 2
    names = [f"{name} ({rank})" for name, rank in ranks.items()]
    axis.set_xticks(middles, names, fontsize=8)
    axis.set_yticks(middles, names, fontsize=8, rotation=90, va="center")
    axis.tick_params(length=0)
