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


@dataclass(frozen=True)
class Measurement:
    """The measurements of one run with what tells it from the others.

    Attributes:
        name: of its directory.
        title: of its configuration without the seed, such as ``recyclelora 32+4``.
        signature: equal for runs that differ by the seed only.
        weights: hash of the pretrained weights.
        spaces: see `measure.Measured`.
    """

    name: str
    title: str
    signature: str
    seed: int
    weights: str | None
    tables: Tables
    spaces: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Group:
    """Runs of one configuration with different seeds."""

    label: str
    runs: tuple[Measurement, ...]

    def values(self, table: str, **wanted: Any) -> list[list[Row]]:
        """The wanted rows of each run."""
        return [select(run.tables.get(table, []), **wanted) for run in self.runs]


def grouped(runs: Sequence[Measurement]) -> list[Group]:
    """Runs by configuration, in their order; groups of one title get their signature's first digits behind it."""
    groups: dict[str, list[Measurement]] = {}
    for run in runs:
        groups.setdefault(run.signature, []).append(run)
    titles = [members[0].title for members in groups.values()]
    return [
        Group(
            title if titles.count(title) == 1 else f"{title} ({signature[:4]})",
            tuple(sorted(members, key=lambda run: run.seed)),
        )
        for title, (signature, members) in zip(titles, groups.items(), strict=True)
    ]


def fused(tables: Tables) -> Tables:
    """The tables with q, k and v counted as qkv, so that methods that adapt them separately share its place."""
    return {
        name: [replace(row, type="qkv") if ".qkv." in row.layer else row for row in rows]
        for name, rows in tables.items()
    }


def with_fused_qkv(groups: Sequence[Group]) -> list[Group]:
    """Every group with `fused` tables."""
    return [Group(group.label, tuple(replace(run, tables=fused(run.tables)) for run in group.runs)) for group in groups]


def run_labels(groups: Sequence[Group]) -> dict[str, Measurement]:
    """``recyclelora 32+4 seed 0`` -> run; a seed that appears twice in a group gets the directory's last digits."""
    labels: dict[str, Measurement] = {}
    for group in groups:
        seeds = [run.seed for run in group.runs]
        for run in group.runs:
            label = f"{group.label} seed {run.seed}"
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
