"""From runs to the comparison: groups of seeds, paired differences to a reference, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from recyclelora.errors import UserError
from recyclelora.image_counts import ImageCounts
from recyclelora.metrics import iou
from recyclelora.provenance import RunDirectory
from recyclelora.reporting.grouping import group_names
from recyclelora.reporting.records import Run, Study, Trial
from recyclelora.reporting.statistics import (
    Interval,
    holm,
    image_weights,
    mean_and_sd,
    percentiles,
    resampled_mean,
    resampled_miou,
    t_interval,
)
from recyclelora.schemas import nearest

MEAN, SOURCE = "mean of targets", "source validation"
ALPHA = 0.05


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
class Group:
    """Finished runs that differ by the seed only."""

    name: str
    runs: list[Scored]
    config: dict[str, Any] = field(repr=False)

    @property
    def seeds(self) -> list[int]:
        """In ascending order."""
        return sorted(run.seed for run in self.runs)

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
        """Mean over its runs."""
        known = [float(run.result["objective"]) for run in self.runs if run.result["objective"] is not None]
        return mean_and_sd(known)[0]

    @cached_property
    def per_class(self) -> np.ndarray | None:
        """Mean over runs of `Scored.per_class`."""
        return mean_per_class(self.runs)


def mean_per_class(runs: Sequence[Scored]) -> np.ndarray | None:
    """Mean over runs of `Scored.per_class`, (K,); None where no run has it."""
    rows = [run.per_class for run in runs if run.per_class is not None]
    same = len({len(row) for row in rows}) == 1
    return np.array(rows).mean(0) if same else None


@dataclass(frozen=True)
class Difference:
    """A group minus the reference on their common seeds.

    Attributes:
        seeds: that both have.
        scores: of each target, of `MEAN` and `SOURCE`.
        p_holm: of `MEAN`, adjusted for all groups that are compared.
        bootstrap: 95 % interval of the same difference when the images (or classes) are drawn anew.
        bootstrap_over: ``images`` or ``classes``.
    """

    group: Group
    seeds: list[int]
    scores: dict[str, Interval]
    p_holm: float | None = None
    bootstrap: tuple[float, float] | None = None
    bootstrap_over: str | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` only where no interval holds zero and the adjusted p is below 0.05."""
        main = self.scores.get(MEAN)
        if main is None:
            return "nothing in common"
        if main.count < 2:
            return "one seed"
        sign = main.sign
        if self.bootstrap is not None and not sign * self.bootstrap[0] > 0 < sign * self.bootstrap[1]:
            sign = 0
        if self.p_holm is None or self.p_holm >= ALPHA:
            sign = 0
        return {1: "better", -1: "worse", 0: "undecided"}[sign]


@dataclass(frozen=True)
class Comparison:
    """What the tables and the page show.

    Attributes:
        groups: that are ranked, the best objective first.
        reference: all others are compared with; None where there is nothing to compare.
        reference_reason: why it is the reference.
        differences: to the reference, in the order of the groups.
        winner: one sentence that claims no more than the intervals allow.
        search: groups of the search, where confirmed ones are ranked instead.
        remarks: what a reader has to know.
    """

    study: Study
    selection: str
    groups: list[Group]
    reference: Group | None
    reference_reason: str
    differences: list[Difference]
    winner: str
    search: list[Group]
    targets: list[str]
    protocols: list[str]
    tuned_on_targets: bool
    remarks: list[str]

    @property
    def confirmed(self) -> bool:
        """Whether the ranked runs are reruns on fresh seeds."""
        return bool(self.search)

    @property
    def basis(self) -> str:
        """What every heading names: protocol, checkpoint, and tuning on targets."""
        chosen = " (chosen on the targets)" if self.selection == "best_target" else ""
        parts = [f"protocol {' and '.join(self.protocols) or 'unknown'}", f"checkpoint {self.selection}{chosen}"]
        return ", ".join([*parts, "tuned on targets"] if self.tuned_on_targets else parts)

    def difference(self, group: Group) -> Difference | None:
        """Of one group; None for the reference."""
        return next((d for d in self.differences if d.group is group), None)


def compare(study: Study, selection: str, reference: str | None, resamples: int) -> Comparison:
    """Group, rank and compare the runs of a study.

    Args:
        study: what was read
        selection: which checkpoint of each run counts
        reference: name of the group the others are compared with, or a part of it that no other has
        resamples: of the bootstrap

    Raises:
        UserError: there is no such reference.
    """
    scored = [Scored(r, t, selection) for t in study.trials for r in t.runs if r.result and t.state != "pruned"]
    missing = [s for s in scored if selection not in s.result["selection"]]
    scored = [s for s in scored if selection in s.result["selection"]]
    groups = _grouped(scored)
    confirmed = [g for g in groups if any(run.trial.confirms for run in g.runs)]
    ranked, search = groups, list[Group]()
    if confirmed:
        ranked = [Group(g.name, [r for r in g.runs if r.trial.confirms], g.config) for g in confirmed]
        search = [
            Group(g.name, kept, g.config) for g in groups if (kept := [r for r in g.runs if not r.trial.confirms])
        ]
    ranked.sort(key=lambda g: (not g.feasible, g.objective is None, -(g.objective or 0.0)))
    chosen, why = _reference(ranked, reference)
    bootstrap = Bootstrap(resamples)
    differences = [] if chosen is None else _differences(chosen, ranked, bootstrap)
    targets = list(dict.fromkeys(name for s in scored for name in s.result["selection"][selection]["targets"]))
    remarks = [f"{len(missing)} runs have no checkpoint {selection} and are left out"] if missing else []
    digests = {s.result["dataset_digest"] for s in scored}
    protocols = list(dict.fromkeys(s.result["protocol"] for s in scored))
    if len(protocols) > 1:
        remarks.append(
            f"runs were scored under different protocols ({', '.join(protocols)}): their scores do not compare"
        )
    if len(digests) > 1:
        remarks.append("runs were trained or scored on different data")
    steps = {s.result["steps"] for s in scored}
    if len(steps) > 1:
        remarks.append(f"runs were trained for different numbers of steps: {min(steps)} to {max(steps)}")
    if study.is_sweep and not confirmed and len(groups) > 1 and all(len(g.runs) == 1 for g in groups):
        remarks.append("every configuration has one run: a search finds candidates, fresh seeds decide between them")
    return Comparison(
        study, selection, ranked, chosen, why, differences, _winner(ranked, bootstrap), search, targets, protocols,
        study.tuned_on_targets or any(g.tuned_on_targets for g in groups), remarks,
    )  # fmt: skip


def _grouped(scored: Sequence[Scored]) -> list[Group]:
    members: dict[str, list[Scored]] = {}
    for run in scored:
        members.setdefault(run.run.key, []).append(run)
    configs = [runs[0].run.config for runs in members.values()]
    groups = [Group(n, runs, c) for n, runs, c in zip(group_names(configs), members.values(), configs, strict=True)]
    return [g if g.feasible else replace(g, name=f"{g.name} (breaks a constraint)") for g in groups]


def _reference(groups: Sequence[Group], wanted: str | None) -> tuple[Group | None, str]:
    """The group that was asked for, the frozen backbone, or the best by objective."""
    if wanted is not None:
        hits = [g for g in groups if g.name == wanted] or [g for g in groups if wanted in g.name]
        if len(hits) != 1:
            names = [g.name for g in groups]
            what = "several groups" if hits else f"no group{nearest(wanted, names)}"
            raise UserError(f"reference={wanted}: {what}; there are: {'; '.join(names[:20])}")
        return hits[0], "as asked"
    frozen = [g for g in groups if g.config.get("adapter.kind") == "frozen"]
    if len(frozen) == 1:
        return frozen[0], "the frozen backbone"
    return (groups[0], "the best by objective") if groups else (None, "")


def _differences(reference: Group, groups: Sequence[Group], bootstrap: Bootstrap) -> list[Difference]:
    """Of every other group, with the p values adjusted for all of them."""
    found = [_difference(group, reference, bootstrap) for group in groups if group is not reference]
    adjusted = holm([d.scores[MEAN].p if MEAN in d.scores else None for d in found])
    return [
        Difference(d.group, d.seeds, d.scores, p, d.bootstrap, d.bootstrap_over)
        for d, p in zip(found, adjusted, strict=True)
    ]


def _difference(group: Group, reference: Group, bootstrap: Bootstrap) -> Difference:
    seeds = sorted(set(group.seeds) & set(reference.seeds))
    scores = {}
    for name in dict.fromkeys(name for run in group.runs for name in run.scores):
        mine, theirs = group.values(name), reference.values(name)
        paired = [mine[seed] - theirs[seed] for seed in seeds if seed in mine and seed in theirs]
        if paired:
            scores[name] = t_interval(paired)
    interval, over = bootstrap.interval(group, reference, seeds)
    return Difference(group, seeds, scores, None, interval, over)


def _winner(groups: Sequence[Group], bootstrap: Bootstrap) -> str:
    """Whether the best by objective is better than every other on the targets."""
    if len(groups) < 2:
        return "There is nothing to compare." if groups else "No run has finished yet."
    best = groups[0]
    against = _differences(best, groups, bootstrap)
    open_questions = [d.group.name for d in against if d.verdict != "worse"]
    if not open_questions:
        others = against[0].group.name if len(against) == 1 else f"each of the other {len(against)}"
        return f"{best.name} has the best objective and is better on the targets than {others}."
    if all(d.scores.get(MEAN) is None or d.scores[MEAN].count < 2 for d in against):
        return f"No winner: {best.name} has the best objective, but fewer than two common seeds decide nothing."
    shown = ", ".join(open_questions[:3]) + (f" and {len(open_questions) - 3} more" if len(open_questions) > 3 else "")
    return f"No winner: {best.name} has the best objective, but is not shown to be better on the targets than {shown}."


class Bootstrap:
    """Differences of the mean of targets when what is scored is drawn anew.

    All runs see the same draws of the images, so that differences are paired; each target is drawn on its own. Where a
    run has kept no counts of single images, the classes are drawn instead.
    """

    def __init__(self, resamples: int, seed: int = 0) -> None:
        self.resamples = resamples
        self.seed = seed
        self._weights: dict[tuple[str, int], np.ndarray] = {}
        self._runs: dict[str, tuple[np.ndarray, tuple[str, ...]] | None] = {}

    def interval(
        self, group: Group, reference: Group, seeds: Sequence[int]
    ) -> tuple[tuple[float, float] | None, str | None]:
        """The 95 % interval over images or classes, and which of these."""
        mine, theirs = ([run for run in g.runs if run.seed in seeds] for g in (group, reference))
        if not mine or not theirs or not self.resamples:
            return None, None
        replicates = [self._replicates(run) for run in [*mine, *theirs]]
        known = [found for found in replicates if found is not None]
        if len(known) == len(replicates) and len({images for _, images in known}) == 1:
            sums = np.array([values for values, _ in known])
            return percentiles(self._by_seed(mine, sums) - self._by_seed(theirs, sums[len(mine) :])), "images"
        a, b = mean_per_class(mine), mean_per_class(theirs)
        if a is None or b is None or len(a) != len(b):
            return None, None
        differences = (a - b)[~np.isnan(a - b)]
        if len(differences) < 2:
            return None, None
        return percentiles(resampled_mean(differences, self.resamples, self.seed)), "classes"

    @staticmethod
    def _by_seed(runs: Sequence[Scored], replicates: np.ndarray) -> np.ndarray:
        """Mean over seeds of the runs' replicates, as `Group.values` counts them, (resamples,)."""
        by_seed: dict[int, list[np.ndarray]] = {}
        for run, values in zip(runs, replicates, strict=False):
            by_seed.setdefault(run.seed, []).append(values)
        means: np.ndarray = np.mean([np.mean(values, 0) for values in by_seed.values()], 0)
        return means

    def _replicates(self, run: Scored) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """The run's mean of targets in every resample, and what tells its images from others."""
        key = f"{run.run.path} {run.selection}"
        if key not in self._runs:
            targets = [name for name in run.scores if name not in (MEAN, SOURCE)]
            complete = bool(targets) and all(len(run.images.get(name, ())) for name in targets)
            self._runs[key] = self._mean_of_targets(run, targets) if complete else None
        return self._runs[key]

    def _mean_of_targets(self, run: Scored, targets: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
        values, images = [], []
        for name in sorted(targets):
            matrices = run.images[name].dense()
            values.append(resampled_miou(matrices, self._draws(name, len(matrices))))
            truth = np.ascontiguousarray(matrices.sum(2))  # the same images have the same pixels of every class
            images.append(f"{name} {hashlib.sha256(truth.tobytes()).hexdigest()}")
        return np.mean(values, 0), tuple(images)

    def _draws(self, name: str, count: int) -> np.ndarray:
        if (name, count) not in self._weights:
            own = int.from_bytes(hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:4], "big")
            self._weights[name, count] = image_weights(count, self.resamples, own)
        return self._weights[name, count]
