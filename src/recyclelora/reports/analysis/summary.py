"""What the analysis of a run comes down to: ``summary.json`` and the tables on the screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from recyclelora.adapters.changes import ALL, INIT, TRAINED, UPDATE
from recyclelora.reports.analysis.compare import MeasuredGroup, Overlap, fused, spread
from recyclelora.reports.analysis.tables import Tables, distinct, mean, scalar_means, select

HEADLINES = (
    "effective_rank", "rank_efficiency", "grassmann_b", "grassmann_a", "column_norm_ratio", "relative_norm",
    "left_top_share", "left_bottom_share", "right_top_share", "right_bottom_share", "relative_change",
    *(f"{name}_{end}_share" for name in ("moments", "gradient_left", "gradient_right") for end in ("top", "bottom")),
)  # fmt: skip
"""Quantities whose means over layers go into MLflow."""

LINES = {
    "rank eff. of B₀A₀": ("rank", {"quantity": "rank_efficiency", "branch": ALL, "stage": INIT}, "{:.3f}"),
    "rank eff. of BA": ("rank", {"quantity": "rank_efficiency", "branch": ALL, "stage": TRAINED}, "{:.3f}"),
    "rank eff. of BA − B₀A₀": ("rank", {"quantity": "rank_efficiency", "branch": ALL, "stage": UPDATE}, "{:.3f}"),
    "eff. rank of BA − B₀A₀": ("rank", {"quantity": "effective_rank", "branch": ALL, "stage": UPDATE}, "{:.1f}"),
    "main · sub, columns of B": ("similarity", {"quantity": "grassmann_b", "stage": TRAINED}, "{:.5f}"),
    "main · sub, rows of A": ("similarity", {"quantity": "grassmann_a", "stage": TRAINED}, "{:.5f}"),
    "‖ΔW‖ / ‖W₀‖": ("size", {"quantity": "relative_norm"}, "{:.3%}"),
    "ΔW in top r of W₀, out": ("shares", {"quantity": "left_top_share"}, "{:.1%}"),
    "ΔW in bottom r of W₀, out": ("shares", {"quantity": "left_bottom_share"}, "{:.1%}"),
    "ΔW in top r of W₀, in": ("shares", {"quantity": "right_top_share"}, "{:.1%}"),
    "ΔW in bottom r of W₀, in": ("shares", {"quantity": "right_bottom_share"}, "{:.1%}"),
    "ΔW in top r of E[xxᵀ], in": ("data_shares", {"quantity": "moments_top_share"}, "{:.1%}"),
    "ΔW in bottom r of E[xxᵀ], in": ("data_shares", {"quantity": "moments_bottom_share"}, "{:.1%}"),
    "ΔW in top r of gradient, out": ("data_shares", {"quantity": "gradient_left_top_share"}, "{:.1%}"),
    "ΔW in top r of gradient, in": ("data_shares", {"quantity": "gradient_right_top_share"}, "{:.1%}"),
}
"""Name -> table, rows that are averaged, and how the number is shown; lines without any number are left out."""


def summary(about: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """The content of ``summary.json``.

    ``metrics`` holds the headlines, ``quantities`` everything that is no curve:
    ``<quantity>/<branch>/<stage>`` -> mean, max, by_type, by_block.
    """
    quantities = scalar_means(tables)
    metrics = {name: found["mean"] for name, found in quantities.items() if name.split("/")[0] in HEADLINES}
    metrics |= {
        f"{name}/max": found["max"] for name, found in quantities.items() if name.startswith("column_norm_ratio")
    }
    return {**about, "metrics": metrics, "quantities": quantities}


def comparison(groups: Sequence[MeasuredGroup], found: Sequence[Overlap]) -> dict[str, Any]:
    """The content of a comparison's ``summary.json``: mean and deviation over the seeds of every configuration."""
    pairs: dict[str, dict[str, float]] = {}
    for pair in dict.fromkeys(overlap.runs for overlap in found):
        part = [o for o in found if o.runs == pair]
        pairs[" | ".join(pair)] = {side: mean(o.similarity for o in part if o.side == side) for side in ("b", "a")}
    return {"configurations": {group.name: _group(group) for group in groups}, "grassmann_between_runs": pairs}


def _group(group: MeasuredGroup) -> dict[str, Any]:
    seeds = [scalar_means(run.tables) for run in group.runs]
    names = dict.fromkeys(name for seed in seeds for name in seed)
    values = {name: spread([seed[name]["mean"] for seed in seeds if name in seed]) for name in names}
    return {
        "runs": [run.name for run in group.runs],
        "seeds": [run.seed for run in group.runs],
        "quantities": {name: {"mean": centre, "std": deviation} for name, (centre, deviation) in values.items()},
    }


def run_table(title: str, tables: Tables) -> Table:
    """Means of one run: a column for each layer type, and one for all layers."""
    tables = fused(tables)
    columns: dict[str, dict[str, str]] = {kind: {"type": kind} for kind in distinct(tables["rank"], "type")}
    return _table(title, {name: ([tables], wanted) for name, wanted in (columns | {"all": {}}).items()})


def group_table(title: str, groups: Sequence[MeasuredGroup]) -> Table:
    """Means over all layers: a column for each configuration, with the deviation over its seeds."""
    return _table(title, {group.name: ([run.tables for run in group.runs], {}) for group in groups})


def _table(title: str, columns: Mapping[str, tuple[Sequence[Tables], Mapping[str, str]]]) -> Table:
    """Lines down, ``columns`` across: each the runs it averages and the rows it takes of them."""
    table = Table(title=title, title_justify="left")
    table.add_column("mean over layers", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", overflow="fold")
    for name, (source, chosen, form) in LINES.items():
        found = [
            spread([mean(row.value for row in select(run.get(source, []), **{**chosen, **wanted})) for run in runs])
            for runs, wanted in columns.values()
        ]
        if any(math.isfinite(centre) for centre, _ in found):
            table.add_row(name, *(_text(form, *value) for value in found))
    return table


def _text(form: str, centre: float, deviation: float) -> str:
    if not math.isfinite(centre):
        return "–"
    return form.format(centre) + (f" ± {form.format(deviation)}" if deviation else "")
