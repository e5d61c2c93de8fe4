"""How much a difference of two groups depends on the images it was measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from recyclelora.reporting.groups import MEAN, SOURCE, Group, Scored, mean_per_class
from recyclelora.reporting.statistics import image_weights, percentiles, resampled_mean, resampled_miou


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
