"""The figures of several runs: one colour for each configuration, mean and spread over its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recyclelora.adapters.changes import ALL, INIT, TRAINED, UPDATE
from recyclelora.drawing import style
from recyclelora.drawing.heatmap import cells, heatmap
from recyclelora.reports.analysis.compare import MeasuredGroup, Measurement, Overlap, rows_of, spread, with_fused_qkv
from recyclelora.reports.analysis.measure import CURVE_STEPS, SIDES
from recyclelora.reports.analysis.panels import every_panel
from recyclelora.reports.analysis.tables import Row, mean, mean_by, select
from recyclelora.reports.grouping import wrapped

Points = dict[Any, tuple[float, float]]
"""x -> mean and standard deviation over seeds."""


def draw(groups: Sequence[MeasuredGroup], found: Sequence[Overlap], runs: dict[str, Measurement], folder: Path) -> None:
    """Write every comparison that the measurements allow."""
    together = with_fused_qkv(groups)
    efficiency_bars(groups, folder / "rank_efficiency.png")
    effective_rank(together, folder / "effective_rank.png")
    relative_size(together, folder / "relative_size.png")
    spectra(together, folder / "spectra.png")
    if _types(groups, "shares"):
        update_shares(groups, folder / "update_shares.png")
    if found:
        adapted = [label for label, run in runs.items() if run.spaces]
        similarity_between_runs(found, adapted, folder / "similarity_between_runs.png")


def efficiency_bars(groups: Sequence[MeasuredGroup], path: Path) -> None:
    """Mean rank efficiency over all layers at the three stages; a dot for each seed."""
    stages = (INIT, TRAINED, UPDATE)
    panel = (max(6.5, 1.4 * len(groups) + 1.5), 3.4)
    figure, axes = style.grid(1, 1, "Rank efficiency: effective rank / rank", "mean over layers, all branches", panel)
    axis = axes[0, 0]
    for shift, stage in zip((-0.27, 0, 0.27), stages, strict=True):
        for x, group in enumerate(groups):
            wanted = rows_of(group, "rank", branch=ALL, stage=stage, quantity="rank_efficiency")
            seeds = [mean(row.value for row in rows) for rows in wanted]
            _bar(axis, x + shift, seeds, stage, "zero matrix" if any(wanted) else "no factors")
    axis.set_xticks(range(len(groups)), [_wrapped(group) for group in groups], fontsize=9)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_ylim(0, 1.15)
    axis.set_ylabel("rank efficiency")
    style.save(figure, path, axes)


def _bar(axis: Any, x: float, seeds: Sequence[float], stage: str, otherwise: str) -> None:
    """One bar with its number, or why there is none."""
    centre, deviation = spread(seeds)
    if not math.isfinite(centre):
        axis.text(x, 0.02, otherwise, ha="center", va="bottom", fontsize=8, color=style.GREY, rotation=90)
        return
    axis.bar(x, centre, 0.25, color=style.STAGE_COLOURS[stage], alpha=0.85, label=style.STAGE_LABELS[stage])
    if len(seeds) > 1:
        axis.errorbar(x, centre, deviation, color="black", lw=1.2, capsize=3)
        axis.plot([x] * len(seeds), seeds, "o", ms=3, color="black", alpha=0.6)
    axis.text(x, centre + deviation + 0.02, f"{centre:.2f}", ha="center", va="bottom", fontsize=8)


def effective_rank(groups: Sequence[MeasuredGroup], path: Path) -> None:
    """Effective rank over the blocks; rows: B A, and the update."""
    types = _types(groups, "rank")
    figure, axes = style.grid(2, len(types), "Effective rank of all branches together", sharex=True, sharey="row")
    for (r, stage), (c, kind) in every_panel((TRAINED, UPDATE), types):
        for index, group in enumerate(groups):
            rows = rows_of(group, "rank", branch=ALL, stage=stage, quantity="effective_rank", type=kind)
            _line(axes[r, c], _over(rows, "block"), index, group.name)
        style.heading(axes[r, c], kind)
        style.whole_numbers(axes[r, c])
    for axis in axes[:, 0]:
        _from_zero(axis)
    style.label_grid(axes, "block", [f"effective rank\n{style.STAGE_LABELS[s]}" for s in (TRAINED, UPDATE)])
    style.save(figure, path, axes)


def relative_size(groups: Sequence[MeasuredGroup], path: Path) -> None:
    """||delta W||_F / ||W0||_F in percent over the blocks."""
    types = _types(groups, "size")
    figure, axes = style.grid(1, len(types), "Size of the weight update", sharey=True)
    for c, kind in enumerate(types):
        for index, group in enumerate(groups):
            rows = rows_of(group, "size", quantity="relative_norm", type=kind)
            _line(axes[0, c], _over(rows, "block", 100), index, group.name)
        style.heading(axes[0, c], kind)
        axes[0, c].set_yscale("log")
        style.whole_numbers(axes[0, c])
    style.plain_log_ticks(axes[0, 0])
    style.label_grid(axes, "block", ["$\\|\\Delta W\\|_F\\ /\\ \\|W_0\\|_F$  (%)"])
    style.save(figure, path, axes)


def spectra(groups: Sequence[MeasuredGroup], path: Path) -> None:
    """Singular values relative to the largest, mean over blocks."""
    types = _types(groups, "spectra")
    figure, axes = style.grid(
        2, len(types), "Singular values relative to the largest", "mean over blocks", sharex="row", sharey=True
    )
    for (r, stage), (c, kind) in every_panel((TRAINED, UPDATE), types):
        for index, group in enumerate(groups):
            rows = [_relative(part) for part in rows_of(group, "spectra", stage=stage, type=kind)]
            points = {i + 1: value for i, value in _over(rows, "index").items()}
            _line(axes[r, c], points, index, group.name, marked=False)
        style.heading(axes[r, c], kind)
        axes[r, c].set_yscale("log")
        axes[r, c].set_ylim(1e-3, 1.2)
    names = [f"$\\sigma_i / \\sigma_1$\n{style.STAGE_LABELS[s]}" for s in (TRAINED, UPDATE)]
    style.label_grid(axes, "index of the singular value", names)
    style.save(figure, path, axes)


def update_shares(groups: Sequence[MeasuredGroup], path: Path) -> None:
    """Cumulative energy of the update along W0's singular directions, mean over blocks."""
    types = _types(groups, "shares")
    figure, axes = style.grid(
        2, len(types), "Where the update lies among the singular directions of $W_0$", sharex=True, sharey=True
    )
    for (r, side), (c, kind) in every_panel(list(style.SIDES_OF_W), types):
        axis = axes[r, c]
        for index, group in enumerate(groups):
            rows = rows_of(group, "shares", quantity=f"{side}_cumulative_share", type=kind)
            _line(axis, _steps(rows), index, group.name, marked=False)
        line = _steps(rows_of(group, "shares", quantity=f"{side}_cumulative_random", type=kind))
        axis.plot(list(line), [value for value, _ in line.values()], ":", color="black", lw=1.3, label="random matrix")
        style.heading(axis, kind)
        axis.set_ylim(0, 102)
    style.label_grid(axes, style.DIRECTIONS, [f"energy of $\\Delta W$ (%)\n{s}" for s in style.SIDES_OF_W.values()])
    style.save(figure, path, axes)


def similarity_between_runs(found: Sequence[Overlap], runs: list[str], path: Path) -> None:
    """Mean Grassmann similarity of the same layer's subspaces in every two runs."""
    size = max(3.2, 0.75 * len(runs) + 1.6)
    figure, axes = style.grid(
        1, 2, "Grassmann similarity of adapters between runs",
        "mean over layers; in brackets what two random subspaces have", (size + 0.9, size), sharey=True,
    )  # fmt: skip
    names = [wrapped(run, 24) for run in runs]
    picture = None
    for axis, side in zip(axes.flat, SIDES, strict=True):
        values, chance = _similarity_tables(found, runs, side)
        axis.set_facecolor("#E5E5E5")
        picture = heatmap(axis, values, names, names, fontsize=8.5, cmap="viridis", vmin=0, vmax=1)
        cells(picture, "{:.2f}\n({:.2f})", chance, fontsize=8.5)
        axis.tick_params(axis="x", rotation=90 if len(runs) > 2 else 0)
        style.heading(axis, style.SIDE_LABELS[side])
    style.colour_bar(figure, picture, axes, shrink=0.7)
    style.save(figure, path)


# --- parts ------------------------------------------------------------------------------------------------------------


def _types(groups: Sequence[MeasuredGroup], table: str) -> list[str]:
    """Layer types of all runs in the order of their first appearance."""
    rows = [row for group in groups for run in group.runs for row in run.tables.get(table, [])]
    return list(dict.fromkeys(row.type for row in rows))


def _over(runs: Sequence[Sequence[Row]], column: str, factor: float = 1.0) -> Points:
    """Mean and deviation over seeds for each value of a column, each seed's rows averaged first."""
    seeds = [mean_by(rows, column) for rows in runs]
    keys = [key for key in dict.fromkeys(k for seed in seeds for k in seed) if key is not None]
    points = {key: spread([factor * seed[key] for seed in seeds if key in seed]) for key in keys}
    return {key: value for key, value in points.items() if math.isfinite(value[0])}


def _steps(runs: Sequence[Sequence[Row]]) -> Points:
    """A cumulative curve with both axes in percent."""
    return {100 * step / CURVE_STEPS: value for step, value in _over(runs, "index", 100).items()}


def _relative(rows: Sequence[Row]) -> list[Row]:
    """Singular values over their layer's largest; those of a zero matrix fall out."""
    largest = {row.layer: row.value for row in select(rows, index=0)}
    return [replace(row, value=row.value / largest[row.layer]) for row in rows if largest[row.layer] > 0]


def _line(axis: Any, points: Points, index: int, label: str, *, marked: bool = True) -> None:
    """The mean line of one group and, with several seeds, a band of one standard deviation."""
    if not points:
        return
    x = list(points)
    centre, deviation = np.array(list(points.values())).T
    colour, dash = style.line(index)
    marker = style.MARKERS[index % len(style.MARKERS)] if marked else ""
    axis.plot(x, centre, dash, color=colour, lw=1.8, marker=marker, ms=3.5, label=label)
    if deviation.any():
        axis.fill_between(x, centre - deviation, centre + deviation, color=colour, alpha=0.2)


def _from_zero(axis: Any) -> None:
    """A y axis that begins at 0, or is logarithmic where the lines lie decades apart."""
    values = np.concatenate(
        [line.get_ydata() for other in axis.get_shared_y_axes().get_siblings(axis) for line in other.lines] or [[1.0]]
    )
    if values.min() > 0 and values.max() > 10 * values.min():
        axis.set_yscale("log")
        style.plain_log_ticks(axis)
    else:
        axis.set_ylim(bottom=0)


def _wrapped(group: MeasuredGroup) -> str:
    seeds = len(group.runs)
    return f"{wrapped(group.name, 24)}\n({seeds} seed{'s' if seeds > 1 else ''})"


def _similarity_tables(found: Sequence[Overlap], runs: list[str], side: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean similarity and its random expectation, (runs, runs); NaN on the diagonal and where runs share no layer."""
    values, chance = (np.full((len(runs), len(runs)), np.nan) for _ in range(2))
    for r, first in enumerate(runs):
        for c, second in enumerate(runs):
            part = [o for o in found if o.side == side and o.runs in ((first, second), (second, first))]
            if part:
                values[r, c] = mean(o.similarity for o in part)
                chance[r, c] = mean(o.random for o in part)
    return values, chance
