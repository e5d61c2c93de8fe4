"""The figures of one run's weights: small multiples, one column for each layer type, blocks along the axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recyclelora.analysis import style
from recyclelora.analysis.layers import ALL, INIT, TRAINED, UPDATE
from recyclelora.analysis.measure import CURVE_STEPS, SIDES, Measured
from recyclelora.analysis.tables import Row, distinct, mean, mean_by, select

STAGE_WORDS = {INIT: "start", TRAINED: "trained", UPDATE: "update"}
NOTE: dict[str, Any] = {
    "fontsize": 8,
    "va": "bottom",
    "bbox": {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5},
}
"""How numbers are written into a panel."""


def draw(measured: Measured, folder: Path, label: str) -> None:
    """Write every figure that the measurements of a run allow."""
    tables = measured.tables
    rank_efficiency(tables["rank"], folder / "rank_efficiency.png", label)
    spectra(tables["spectra"], folder / "spectra.png", label)
    relative_size(tables["size"], folder / "relative_size.png", label)
    if tables.get("shares"):
        update_shares(tables["shares"], folder / "update_shares.png", label)
    pairs = [row for row in tables.get("similarity", []) if "-" in row.branch]
    if pairs:
        main_sub_similarity(pairs, folder / "main_sub_similarity.png", label)
        principal_angles(tables["angles"], folder / "principal_angles.png", label)
    if any(math.isfinite(row.value) for row in tables.get("similarity", []) if row.quantity.endswith("to_start")):
        similarity_to_start(tables["similarity"], folder / "similarity_to_start.png", label)
    if tables.get("column_norms"):
        column_norms(tables["column_norms"], folder / "column_norms.png", label)
    if measured.cosines:
        for side in SIDES:
            cosine_maps(measured, side, folder / f"cosines_{side}.png", label)


def rank_efficiency(rows: list[Row], path: Path, label: str) -> None:
    """Effective rank / rank over the blocks; rows: branches, lines: stages."""
    branches, types = shown_branches(rows), distinct(rows, "type")
    title = "Rank efficiency: effective rank / rank"
    figure, axes = style.grid(len(branches), len(types), title, label, sharex=True, sharey=True)
    for (r, branch), (c, kind) in _cells(branches, types):
        part = select(rows, branch=branch, type=kind)
        notes = []
        for stage in distinct(part, "stage"):
            line = select(part, stage=stage, quantity="rank_efficiency")
            _over_blocks(axes[r, c], line, style.STAGE_COLOURS[stage], style.STAGE_LABELS[stage], dashed=stage == INIT)
            effective = mean(row.value for row in select(part, stage=stage, quantity="effective_rank"))
            bound = mean(row.value for row in select(part, stage=stage, quantity="rank"))
            if math.isfinite(effective):
                notes.append(f"{STAGE_WORDS[stage]}: {effective:.1f} of {bound:.0f}")
        axes[r, c].text(0.03, 0.04, "\n".join(notes), transform=axes[r, c].transAxes, **NOTE)
        style.heading(axes[r, c], kind)
        axes[r, c].set_ylim(0, 1.05)
    style.label_grid(axes, "block", [_branch_name(branch) for branch in branches])
    style.shared_legend(figure, axes)
    style.save(figure, path)


def spectra(rows: list[Row], path: Path, label: str) -> None:
    """Singular values of s B A and of the weight update, log scale, one line a block."""
    stages = [stage for stage in (TRAINED, UPDATE) if select(rows, stage=stage)]
    types = distinct(rows, "type")
    title = "Singular values of the adapter and of the weight update"
    figure, axes = style.grid(len(stages), len(types), title, label, sharey="row")
    for (r, stage), (c, kind) in _cells(stages, types):
        axis = axes[r, c]
        _by_block(axis, select(rows, stage=stage, type=kind), _blocks(rows))
        start = mean_by(select(rows, stage=INIT, type=kind), "index") if stage == TRAINED else {}
        if any(value > 0 for value in start.values()):
            axis.plot([i + 1 for i in start], list(start.values()), "--", color="black", lw=1.3, label="start, mean")
        axis.set_yscale("log")
        axis.set_ylim(*_log_range(select(rows, stage=stage)))
        style.plain_log_ticks(axis)
        style.heading(axis, kind)
    names = {TRAINED: "singular value of $s\\,BA$", UPDATE: "singular value of $\\Delta W$"}
    style.label_grid(axes, "index of the singular value", [names[stage] for stage in stages])
    _block_bar(figure, axes, _blocks(rows))
    style.shared_legend(figure, axes)
    style.save(figure, path)


def relative_size(rows: list[Row], path: Path, label: str) -> None:
    """||delta W||_F / ||W0||_F in percent."""
    figure, axes = style.grid(1, 1, "Size of the weight update", label, panel=(6.5, 3.4))
    _lines_by_type(axes[0, 0], select(rows, quantity="relative_norm"), factor=100)
    axes[0, 0].set_ylim(bottom=0)
    style.label_grid(axes, "block", ["$\\|\\Delta W\\|_F\\ /\\ \\|W_0\\|_F$  (%)"])
    style.shared_legend(figure, axes)
    style.save(figure, path)


def update_shares(rows: list[Row], path: Path, label: str) -> None:
    """Cumulative energy of the update along W0's singular directions, against a random matrix."""
    types = distinct(rows, "type")
    title = "Where the update lies among the singular directions of $W_0$"
    figure, axes = style.grid(2, len(types), title, label, sharex=True, sharey=True)
    percent = [100 * step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    for (r, side), (c, kind) in _cells(list(style.SIDES_OF_W), types):
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
    style.label_grid(axes, style.DIRECTIONS, [f"energy of $\\Delta W$ (%)\n{s}" for s in style.SIDES_OF_W.values()])
    style.shared_legend(figure, axes)
    style.save(figure, path)


def main_sub_similarity(rows: list[Row], path: Path, label: str) -> None:
    """Grassmann similarity of two branches over the blocks."""
    types = distinct(rows, "type")
    title = "Grassmann similarity of main and sub adapter"
    figure, axes = style.grid(2, len(types), title, label, sharex=True, sharey="row")
    for (r, side), (c, kind) in _cells(list(SIDES), types):
        axis, part = axes[r, c], select(rows, type=kind)
        for stage in (INIT, TRAINED):
            line = select(part, quantity=f"grassmann_{side}", stage=stage)
            _over_blocks(axis, line, style.STAGE_COLOURS[stage], STAGE_WORDS[stage], dashed=stage == INIT)
        now = mean(row.value for row in line)
        chance = mean(row.value for row in select(part, quantity=f"grassmann_{side}_random"))
        axis.axhline(chance, color="black", lw=1.2, ls=":", label="two random subspaces")
        style.heading(axis, kind, f"trained {now:.2g}, random {chance:.2g}")
    for row, side in zip(axes, SIDES, strict=True):
        values = [r.value for r in rows if r.quantity in (f"grassmann_{side}", f"grassmann_{side}_random")]
        row[0].set_ylim(0, 1.1 * max(filter(math.isfinite, values)))
    style.label_grid(axes, "block", [f"similarity\n{style.SIDE_LABELS[side]}" for side in SIDES])
    style.shared_legend(figure, axes)
    style.save(figure, path)


def similarity_to_start(rows: list[Row], path: Path, label: str) -> None:
    """How much of its first subspace each branch still spans."""
    branches = [branch for branch in distinct(rows, "branch") if "-" not in branch]
    sides = [s for s in SIDES if any(math.isfinite(r.value) for r in select(rows, quantity=f"grassmann_{s}_to_start"))]
    title = "Grassmann similarity of each adapter with its own start"
    figure, axes = style.grid(len(sides), len(branches), title, label, (4.6, 2.7), sharex=True, sharey=True)
    for (r, side), (c, branch) in _cells(sides, branches):
        _lines_by_type(axes[r, c], select(rows, quantity=f"grassmann_{side}_to_start", branch=branch))
        style.heading(axes[r, c], branch)
        axes[r, c].ticklabel_format(axis="y", useOffset=False)
    style.label_grid(axes, "block", [f"similarity\n{style.SIDE_LABELS[side]}" for side in sides])
    style.shared_legend(figure, axes)
    style.save(figure, path)


def principal_angles(rows: list[Row], path: Path, label: str) -> None:
    """Principal angles of two branches, smallest first, one line a block."""
    types = distinct(rows, "type")
    title = "Principal angles between main and sub adapter"
    figure, axes = style.grid(2, len(types), title, label, sharex=True, sharey=True)
    for (r, side), (c, kind) in _cells(list(SIDES), types):
        axis, part = axes[r, c], select(rows, type=kind, quantity=f"angle_{side}")
        _by_block(axis, select(part, stage=TRAINED), _blocks(rows), marker="o")
        start = mean_by(select(part, stage=INIT), "index")
        axis.plot([i + 1 for i in start], list(start.values()), "--", color="black", lw=1.3, label="start, mean")
        smallest = min(row.value for row in select(part, stage=TRAINED))
        style.heading(axis, kind, f"smallest after training {smallest:.1f}°")
        axis.set_ylim(0, 95)
        axis.set_yticks([0, 30, 60, 90])
        style.whole_numbers(axis)
    style.label_grid(axes, "index of the angle", [f"angle (°)\n{style.SIDE_LABELS[side]}" for side in SIDES])
    _block_bar(figure, axes, _blocks(rows))
    style.shared_legend(figure, axes)
    style.save(figure, path)


def column_norms(rows: list[Row], path: Path, label: str) -> None:
    """Ratio of A's column norms at the initialised positions to those elsewhere."""
    branches = distinct(rows, "branch")
    names = {TRAINED: "columns of $A$", UPDATE: "columns of $A - A_0$"}
    title = "Column norms of A: mean at the initialised positions / mean elsewhere"
    figure, axes = style.grid(2, len(branches), title, label, (4.6, 2.7), sharex=True)
    for (r, stage), (c, branch) in _cells(list(names), branches):
        axis, part = axes[r, c], select(rows, branch=branch, stage=stage, quantity="column_norm_ratio")
        _lines_by_type(axis, part)
        values = [row.value for row in part if math.isfinite(row.value)]
        axis.axhline(1, color="black", lw=1.2, ls=":", label="no difference")
        if values:
            style.heading(axis, f"{branch}: mean {_ratio(mean(values))}, max {_ratio(max(values))}")
            if max(values) > 20:
                axis.set_yscale("log")
                axis.set_ylim(0.7, 2 * max(values))
    style.label_grid(axes, "block", [f"ratio of mean norms\n{text}" for text in names.values()])
    style.shared_legend(figure, axes)
    style.save(figure, path)


def cosine_maps(measured: Measured, side: str, path: Path, label: str) -> None:
    """Cosines between all adapter vectors of a few layers; lines mark where the next branch begins."""
    layers = {(row.block, row.type): row.layer for row in measured.tables["rank"] if row.layer in measured.cosines}
    blocks, types = (list(dict.fromkeys(keys)) for keys in zip(*layers, strict=True))
    what = "columns of B" if side == "b" else "rows of A"
    title = f"Cosines between the {what} after training"
    figure, axes = style.grid(len(blocks), len(types), title, label, (2.9, 2.9))
    maps = {key: getattr(measured.cosines[layer], side).cpu().numpy() for key, layer in layers.items()}
    limit = _off_diagonal(list(maps.values()))
    picture = None
    for (r, block), (c, kind) in _cells(blocks, types):
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


def shown_branches(rows: list[Row]) -> list[str]:
    """The branches, and their sum where there are several."""
    branches: list[str] = distinct(rows, "branch")
    return [branch for branch in branches if branch != ALL] if len(branches) == 2 else branches


def _branch_name(branch: str) -> str:
    return "all branches" if branch == ALL else branch


def _cells(rows: Sequence[Any], columns: Sequence[Any]) -> list[tuple[tuple[int, Any], tuple[int, Any]]]:
    return [(row, column) for row in enumerate(rows) for column in enumerate(columns)]


def _blocks(rows: list[Row]) -> list[int]:
    return sorted(block for block in distinct(rows, "block") if block is not None)


def _over_blocks(axis: Any, rows: list[Row], colour: str, label: str, *, dashed: bool = False) -> None:
    """One line over the blocks; nothing where no value is defined."""
    points = [(row.block, row.value) for row in rows if row.block is not None]
    if any(math.isfinite(value) for _, value in points):
        look = {"ls": (0, (2, 2)), "zorder": 3} if dashed else {"marker": "o", "ms": 2.5}
        axis.plot(*zip(*points, strict=True), color=colour, lw=1.8, label=label, **look)
        style.whole_numbers(axis)


def _lines_by_type(axis: Any, rows: list[Row], factor: float = 1.0) -> None:
    for index, kind in enumerate(distinct(rows, "type")):
        points = [(row.block, factor * row.value) for row in select(rows, type=kind) if row.block is not None]
        look = {"color": style.PALETTE[index % 7], "marker": style.MARKERS[index % 7]}
        axis.plot(*zip(*points, strict=True), lw=1.6, ms=4, label=kind, **look)
    style.whole_numbers(axis)


def _by_block(axis: Any, rows: list[Row], blocks: list[int], marker: str = "") -> None:
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


def _block_bar(figure: Any, axes: Any, blocks: list[int]) -> None:
    """The colour bar that goes with `_by_block`."""
    import matplotlib as mpl

    scale = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 256)))
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(blocks[0], max(blocks[-1], blocks[0] + 1)), scale)
    style.colour_bar(figure, shades, axes, "block", shrink=0.6)


def _ratio(value: float) -> str:
    return f"{value:,.0f}×" if value > 100 else f"{value:.2f}×"


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
