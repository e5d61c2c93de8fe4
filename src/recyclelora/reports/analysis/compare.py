"""Several runs side by side: which of them are seeds of one configuration, and how alike their subspaces are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from torch import Tensor

from recyclelora.adapters.subspaces import grassmann_similarity, random_similarity
from recyclelora.reports.analysis.tables import Row, Tables, mean, select
from recyclelora.reports.grouping import Group, grouped


@dataclass(frozen=True)
class Measurement:
    """The measurements of one run with what tells it from the others.

    Attributes:
        name: of its directory.
        config: equal for runs that differ by the seed only, as `records.Run` has it.
        weights: hash of the pretrained weights.
        spaces: see `measure.Measured`.
    """

    name: str
    config: dict[str, Any]
    seed: int
    weights: str | None
    tables: Tables
    spaces: Mapping[str, Mapping[str, Tensor]]


MeasuredGroup = Group[Measurement]


def by_configuration(runs: Sequence[Measurement]) -> list[MeasuredGroup]:
    """Groups of runs that differ by the seed only, which is ascending in each."""
    groups = grouped(runs, lambda run: run.config)
    return [replace(group, runs=sorted(group.runs, key=lambda run: run.seed)) for group in groups]


def rows_of(group: MeasuredGroup, table: str, **wanted: Any) -> list[list[Row]]:
    """The wanted rows of each run."""
    return [select(run.tables.get(table, []), **wanted) for run in group.runs]


def fused(tables: Tables) -> Tables:
    """The tables with q, k and v counted as qkv, so that methods that adapt them separately share its place."""
    return {
        name: [replace(row, type="qkv") if ".qkv." in row.layer else row for row in rows]
        for name, rows in tables.items()
    }


def with_fused_qkv(groups: Sequence[MeasuredGroup]) -> list[MeasuredGroup]:
    """Every group with `fused` tables."""
    return [replace(group, runs=[replace(run, tables=fused(run.tables)) for run in group.runs]) for group in groups]


def run_labels(groups: Sequence[MeasuredGroup]) -> dict[str, Measurement]:
    """``main.rank=32, seed 0`` -> run; a seed that appears twice in a group gets the directory's last digits."""
    labels: dict[str, Measurement] = {}
    for group in groups:
        seeds = [run.seed for run in group.runs]
        for run in group.runs:
            label = f"{group.name}, seed {run.seed}"
            labels[label if seeds.count(run.seed) == 1 else f"{label} ({run.name[-4:]})"] = run
    return labels


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of what is defined; the deviation of one value is 0."""
    known = [value for value in values if math.isfinite(value)]
    return mean(known), statistics.stdev(known) if len(known) > 1 else 0.0


@dataclass(frozen=True)
class Overlap:
    """Grassmann similarity of one layer's adapter in two runs, and of random subspaces of the same dimensions."""

    runs: tuple[str, str]
    layer: str
    side: str
    similarity: float
    random: float


def overlaps(runs: Mapping[str, Measurement]) -> list[Overlap]:
    """Of every two runs on the same pretrained weights, every layer that both adapt."""
    found = []
    for (first, a), (second, b) in combinations(runs.items(), 2):
        if a.weights != b.weights:
            continue
        for layer in a.spaces.keys() & b.spaces.keys():
            for side, x in a.spaces[layer].items():
                y = b.spaces[layer][side]
                if len(x) == len(y) and min(x.shape[1], y.shape[1]):
                    similarity, chance = grassmann_similarity(x, y), random_similarity(x, y)
                    found.append(Overlap((first, second), layer, side, similarity, chance))
    return sorted(found, key=lambda o: (o.runs, o.layer, o.side))
