"""Finished runs under one selection of their checkpoint, and groups of them that differ by the seed only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import iou
from recyclelora.reports.grouping import Group
from recyclelora.reports.records import Run, Trial
from recyclelora.reports.statistics import mean_and_sd
from recyclelora.runs.directory import RunDirectory

MEAN, SOURCE = "mean of targets", "source validation"


@dataclass(frozen=True)
class Scored:
    """A finished run under one selection of its checkpoint.

    Attributes:
        selection: ``last``, ``best_source`` or ``best_target``.
        trial: it belongs to.
    """

    run: Run
    trial: Trial
    selection: str

    @property
    def result(self) -> dict[str, Any]:
        """``result.json``."""
        assert self.run.result is not None
        return self.run.result

    @property
    def seed(self) -> int:
        """The run's."""
        return int(self.result["seed"])

    @cached_property
    def scores(self) -> dict[str, float]:
        """mIoU of each target, of `MEAN` and of `SOURCE`, as far as they have labels."""
        summary = self.result["selection"][self.selection]
        found = {**summary["targets"], MEAN: summary["mean"], SOURCE: summary["source_val"]}
        return {name: float(value) for name, value in found.items() if value is not None}

    @cached_property
    def figures(self) -> dict[str, float]:
        """``<figure>, <set>`` -> value of further metrics."""
        found = self.result["selection"][self.selection].get("metrics", {})
        return {f"{key}, {name}": float(value) for name, row in found.items() for key, value in row.items()}

    @cached_property
    def images(self) -> dict[str, ImageCounts]:
        """The counts of single images of each target, as far as they were kept."""
        summary = self.result["selection"][self.selection]
        folder = RunDirectory(self.run.path).image_counts / str(summary["step"])
        paths = {name: folder / f"{name}.safetensors" for name in summary["targets"]}
        return {name: ImageCounts.load(path) for name, path in paths.items() if path.exists()}

    @cached_property
    def per_class(self) -> np.ndarray | None:
        """IoU of each class, mean over the targets that have it, (K,), NaN where none has; None where unknown."""
        targets = [name for name in self.scores if name not in (MEAN, SOURCE)]
        if not targets:
            return None
        if self.result["selection"]["last"]["step"] == self.result["selection"][self.selection]["step"]:
            rows = [self.result["iou_per_class"][name] for name in targets]
            values = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
        elif all(name in self.images for name in targets):
            values = np.array([iou(self.images[name].total()) for name in targets])
        else:
            return None
        known = (~np.isnan(values)).sum(0)
        means: np.ndarray = np.divide(np.nansum(values, 0), known, out=np.full(known.shape, np.nan), where=known > 0)
        return means


@dataclass(frozen=True)
class ScoredGroup(Group[Scored]):
    """Finished runs that differ by the seed only, and what their scores come to."""

    @property
    def seeds(self) -> list[int]:
        """In ascending order, each once, however often it was run."""
        return sorted({run.seed for run in self.runs})

    @property
    def feasible(self) -> bool:
        """Whether its trials keep the constraints of the sweep."""
        return all(run.trial.feasible for run in self.runs)

    @property
    def tuned_on_targets(self) -> bool:
        """Whether any run was chosen by its score on the target sets."""
        return any(run.result["objective_name"] == "target_mean" for run in self.runs)

    def values(self, name: str) -> dict[int, float]:
        """Seed -> score; of runs with one seed, such as on other hardware, their mean."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            if name in run.scores:
                found.setdefault(run.seed, []).append(run.scores[name])
        return {seed: sum(values) / len(values) for seed, values in sorted(found.items())}

    def score(self, name: str) -> tuple[float | None, float | None]:
        """Mean and standard deviation over seeds."""
        return mean_and_sd(list(self.values(name).values()))

    def about(self, *path: str) -> float | None:
        """Mean of a number of ``result.json``, such as ``seconds`` or ``params``, ``total``."""
        values = []
        for run in self.runs:
            value: Any = run.result
            for key in path:
                value = value[key]
            values.append(float(value))
        return mean_and_sd(values)[0]

    @property
    def objective(self) -> float | None:
        """Mean over its seeds, as `values` counts them."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            if run.result["objective"] is not None:
                found.setdefault(run.seed, []).append(float(run.result["objective"]))
        return mean_and_sd([sum(values) / len(values) for values in found.values()])[0]

    @cached_property
    def per_class(self) -> np.ndarray | None:
        """Mean over runs of `Scored.per_class`."""
        return mean_per_class(self.runs)


def mean_per_class(runs: Sequence[Scored]) -> np.ndarray | None:
    """Mean over runs of `Scored.per_class`, (K,); None where no run has it."""
    rows = [run.per_class for run in runs if run.per_class is not None]
    same = len({len(row) for row in rows}) == 1
    return np.array(rows).mean(0) if same else None
