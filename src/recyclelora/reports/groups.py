"""Finished runs under one selection of their checkpoint, and groups of them that differ by the seed only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import iou
from recyclelora.evaluation.scores import SOURCE_TITLE, SOURCE_VAL
from recyclelora.reports.grouping import Group
from recyclelora.reports.records import Run, Trial
from recyclelora.reports.statistics import mean_and_sd
from recyclelora.runs.directory import RunDirectory

MEAN, SOURCE = "mean of targets", SOURCE_TITLE
WORST, WORST_CLASS = "worst target", "worst class"
"""The lowest of what each run has: of its targets, and of its classes in the mean over targets."""


@dataclass(frozen=True)
class Scored:
    """A finished run under one selection of its checkpoint.

    Attributes:
        selection: ``last``, ``best_source`` or ``best_target``.
        trial: it belongs to.
        alone: no run that it is compared with has targets: its validation stands for their mean.
    """

    run: Run
    trial: Trial
    selection: str
    alone: bool = False

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
        """mIoU of each target, of `MEAN` and of `SOURCE`, as far as they have labels; `alone` of `MEAN` only."""
        summary = self.result["selection"][self.selection]
        if self.alone:
            return {} if summary["source_val"] is None else {MEAN: float(summary["source_val"])}
        found = {**summary["targets"], MEAN: summary["mean"], SOURCE: summary["source_val"]}
        return {name: float(value) for name, value in found.items() if value is not None}

    @property
    def scored(self) -> list[str]:
        """The sets that `MEAN` is the mean of: targets with labels, or `alone` the validation."""
        if self.alone:
            return [SOURCE_VAL] if self.scores else []
        return [name for name in self.scores if name not in (MEAN, SOURCE)]

    @cached_property
    def worst(self) -> dict[str, tuple[str, float]]:
        """`WORST` and `WORST_CLASS` -> its name and IoU, as far as there are several."""
        targets = {name: value for name, value in self.scores.items() if name not in (MEAN, SOURCE)}
        rows = [] if self.per_class is None else zip(self.result["classes"], self.per_class, strict=True)
        classes = {name: float(value) for name, value in rows if not np.isnan(value)}
        found = {WORST: targets, WORST_CLASS: classes}
        return {kind: min(of.items(), key=lambda one: one[1]) for kind, of in found.items() if len(of) > 1}

    @cached_property
    def figures(self) -> dict[str, float]:
        """``<figure>, <set>`` -> value of further metrics, first their means over several targets."""
        found = self.result["selection"][self.selection].get("metrics", {})
        known = {f"{key}, {name}": float(value) for name, row in found.items() for key, value in row.items()}
        rows = [row for name, row in found.items() if name != SOURCE_VAL]
        keys = dict.fromkeys(key for row in rows for key in row) if len(rows) > 1 else {}
        means = {key: [float(row[key]) for row in rows if key in row] for key in keys}
        return {f"{key}, {MEAN}": sum(values) / len(values) for key, values in means.items()} | known

    @cached_property
    def images(self) -> dict[str, ImageCounts]:
        """The counts of single images of each set in `scored`, as far as they were kept."""
        summary = self.result["selection"][self.selection]
        folder = RunDirectory(self.run.path).image_counts / str(summary["step"])
        wanted = [SOURCE_VAL] if self.alone else summary["targets"]
        paths = {name: folder / f"{name}.safetensors" for name in wanted}
        return {name: ImageCounts.load(path) for name, path in paths.items() if path.exists()}

    @cached_property
    def per_class(self) -> np.ndarray | None:
        """IoU of each class, mean over the sets that have it, (K,), NaN where none has; None where unknown."""
        targets = self.scored
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
        """Seed -> score, worst or further figure; of runs with one seed, such as on other hardware, their mean."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            worst = {kind: value for kind, (_, value) in run.worst.items()} if name in (WORST, WORST_CLASS) else {}
            if (value := (run.scores | run.figures | worst).get(name)) is not None:
                found.setdefault(run.seed, []).append(value)
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
    def movement(self) -> tuple[float | None, float | None]:
        """Mean and standard deviation of how far the weights moved, over the runs that know."""
        found = [run.result.get("movement") for run in self.runs]
        return mean_and_sd([float(value) for value in found if value is not None])

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
