"""The figures of one run's weights: small multiples, one column for each layer type, blocks along the axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recyclelora.adapters.changes import ALL, INIT, TRAINED, UPDATE
from recyclelora.drawing import style
from recyclelora.reports.analysis import branch_figures
from recyclelora.reports.analysis.measure import CURVE_STEPS, SIDES, Measured
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


def draw(measured: Measured, folder: Path, label: str) -> None:
    """Write every figure that the measurements of a run allow."""
    tables = measured.tables
    rank_efficiency(tables["rank"], folder / "rank_efficiency.png", label)
    spectra(tables["spectra"], folder / "spectra.png", label)
    relative_size(tables["size"], folder / "relative_size.png", label)
    if tables.get("shares"):
        update_shares(tables["shares"], folder / "update_shares.png", label)
    if tables.get("data_shares"):
        data_shares(tables["data_shares"], folder / "data_shares.png", label)
    pairs = [row for row in tables.get("similarity", []) if "-" in row.branch]
    if pairs:
        branch_figures.main_sub_similarity(pairs, folder / "main_sub_similarity.png", label)
        branch_figures.principal_angles(tables["angles"], folder / "principal_angles.png", label)
    if any(math.isfinite(row.value) for row in tables.get("similarity", []) if row.quantity.endswith("to_start")):
        branch_figures.similarity_to_start(tables["similarity"], folder / "similarity_to_start.png", label)
    if tables.get("column_norms"):
        branch_figures.column_norms(tables["column_norms"], folder / "column_norms.png", label)
    if measured.cosines:
        for side in SIDES:
            branch_figures.cosine_maps(measured, side, folder / f"cosines_{side}.png", label)


def rank_efficiency(rows: list[Row], path: Path, label: str) -> None:
    """Effective rank / rank over the blocks; rows: branches, lines: stages."""
    branches, types = shown_branches(rows), distinct(rows, "type")
    title = "Rank efficiency: effective rank / rank"
    figure, axes = style.grid(len(branches), len(types), title, label, sharex=True, sharey=True)
    for (r, branch), (c, kind) in every_panel(branches, types):
        part = select(rows, branch=branch, type=kind)
        notes = []
        for stage in distinct(part, "stage"):
            line = select(part, stage=stage, quantity="rank_efficiency")
            over_blocks(axes[r, c], line, style.STAGE_COLOURS[stage], style.STAGE_LABELS[stage], dashed=stage == INIT)
            effective = mean(row.value for row in select(part, stage=stage, quantity="effective_rank"))
            bound = mean(row.value for row in select(part, stage=stage, quantity="rank"))
            if math.isfinite(effective):
                notes.append(f"{STAGE_WORDS[stage]} {effective:.1f} of {bound:.0f}")
        style.heading(axes[r, c], kind, "\n".join(filter(None, (", ".join(notes[:2]), ", ".join(notes[2:])))))
        axes[r, c].set_ylim(0, 1.05)
    style.label_grid(axes, "block", ["all branches" if branch == ALL else branch for branch in branches])
    style.save(figure, path, axes)


def spectra(rows: list[Row], path: Path, label: str) -> None:
    """Singular values of s B A and of the weight update, log scale, one line a block."""
    stages = [stage for stage in (TRAINED, UPDATE) if select(rows, stage=stage)]
    types = distinct(rows, "type")
    title = "Singular values of the adapter and of the weight update"
    figure, axes = style.grid(len(stages), len(types), title, label, sharey="row")
    for (r, stage), (c, kind) in every_panel(stages, types):
        axis = axes[r, c]
        by_block(axis, select(rows, stage=stage, type=kind), block_numbers(rows))
        start = mean_by(select(rows, stage=INIT, type=kind), "index") if stage == TRAINED else {}
        if any(value > 0 for value in start.values()):
            axis.plot([i + 1 for i in start], list(start.values()), "--", color="black", lw=1.3, label="start, mean")
        axis.set_yscale("log")
        axis.set_ylim(*_log_range(select(rows, stage=stage)))
        style.plain_log_ticks(axis)
        style.heading(axis, kind)
    names = {TRAINED: "singular value of $s\\,BA$", UPDATE: "singular value of $\\Delta W$"}
    style.label_grid(axes, "index of the singular value", [names[stage] for stage in stages])
    block_bar(figure, axes, block_numbers(rows))
    style.save(figure, path, axes)


def relative_size(rows: list[Row], path: Path, label: str) -> None:
    """||delta W||_F / ||W0||_F in percent."""
    figure, axes = style.grid(1, 1, "Size of the weight update", label, panel=(6.5, 3.4))
    lines_by_type(axes[0, 0], select(rows, quantity="relative_norm"), factor=100)
    axes[0, 0].set_ylim(bottom=0)
    style.label_grid(axes, "block", ["$\\|\\Delta W\\|_F\\ /\\ \\|W_0\\|_F$  (%)"])
    style.save(figure, path, axes)


def update_shares(rows: list[Row], path: Path, label: str) -> None:
    """Cumulative energy of the update along W0's singular directions, against a random matrix."""
    title = "Where the update lies among the singular directions of $W_0$"
    _shares(rows, path, (title, label), style.SIDES_OF_W, style.DIRECTIONS)


def data_shares(rows: list[Row], path: Path, label: str) -> None:
    """The same along the directions of the data: of the inputs' second moments, and of the gradient's two sides."""
    title = "Where the update lies among the directions of the data"
    known = {side: words for side, words in style.SIDES_OF_DATA.items() if select(rows, quantity=f"{side}_top_share")}
    _shares(rows, path, (title, label), known, "directions, largest first (%)")


def _shares(rows: list[Row], path: Path, titles: tuple[str, str], sides: Mapping[str, str], directions: str) -> None:
    types = distinct(rows, "type")
    figure, axes = style.grid(len(sides), len(types), *titles, sharex=True, sharey=True)
    percent = [100 * step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    for (r, side), (c, kind) in every_panel(list(sides), types):
        axis, part = axes[r, c], select(rows, type=kind)
        curves = _curves(select(part, quantity=f"{side}_cumulative_share"))
        axis.fill_between(percent, curves.min(0), curves.max(0), color=style.BLUE, alpha=0.2, label="all blocks")
        axis.plot(percent, curves.mean(0), color=style.BLUE, lw=2, label="mean over blocks")
        chance = _curves(select(part, quantity=f"{side}_cumulative_random")).mean(0)
        axis.plot(percent, chance, "--", color="black", lw=1.2, label="random matrix")
        top, bottom, random = (
            100 * mean(row.value for row in select(part, quantity=f"{side}_{end}_share"))
            for end in ("top", "bottom", "random")
        )
        style.heading(axis, kind, f"top r {top:.1f} %, bottom r {bottom:.1f} % (random {random:.1f} %)")
        axis.set_ylim(0, 102)
    style.label_grid(axes, directions, [f"energy of $\\Delta W$ (%)\n{s}" for s in sides.values()])
    style.save(figure, path, axes)


# --- parts ------------------------------------------------------------------------------------------------------------


def shown_branches(rows: list[Row]) -> list[str]:
    """The branches, and their sum where there are several."""
    branches: list[str] = distinct(rows, "branch")
    return [branch for branch in branches if branch != ALL] if len(branches) == 2 else branches


def _curves(rows: list[Row]) -> np.ndarray:
    """Percent, (layers, steps)."""
    layers = distinct(rows, "layer")
    return 100 * np.array([[row.value for row in select(rows, layer=layer)] for layer in layers])


def _log_range(rows: list[Row]) -> tuple[float | None, float | None]:
    """At least a decade, without the rounding noise that a log axis would show as if it were something."""
    peak = max((row.value for row in rows), default=0.0)
    if not peak > 0:
        return None, None
    smallest = min(row.value for row in rows if row.value > 1e-10 * peak)
    return min(smallest / 1.5, peak / 10), 1.5 * peak
