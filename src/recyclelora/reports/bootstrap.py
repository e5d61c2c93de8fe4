"""How much a difference of two groups depends on the images it was measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from recyclelora.reports.groups import Scored, ScoredGroup, mean_per_class
from recyclelora.reports.statistics import image_weights, percentiles, resampled_mean, resampled_miou


class Bootstrap:
    """Differences of the mean of targets when what is scored is drawn anew.

    Whole drives are drawn where a run knows which images are frames of one, else images, each target on its own. All
    runs see the same draws, so that differences are paired. Where a run has kept no counts of single images, the
    classes are drawn instead.
    """

    def __init__(self, resamples: int, seed: int = 0) -> None:
        self.resamples = resamples
        self.seed = seed
        self._weights: dict[tuple[str, str], np.ndarray] = {}
        self._means: dict[tuple[str, str, str], np.ndarray] = {}
        self._marks: dict[str, dict[str, str] | None] = {}
        self._drives: dict[str, np.ndarray] = {}
        """what tells a target's images from others -> the drives of these images"""

    def interval(
        self, group: ScoredGroup, reference: ScoredGroup, seeds: Sequence[int]
    ) -> tuple[tuple[float, float] | None, str | None]:
        """The 95 % interval, and what was drawn for it: images, drives, or classes."""
        mine, theirs = ([run for run in g.runs if run.seed in seeds] for g in (group, reference))
        if not mine or not theirs or not self.resamples:
            return None, None
        marks = [self._images(run) for run in [*mine, *theirs]]
        if marks[0] is not None and all(mark == marks[0] for mark in marks):
            sums = np.array([self._mean_of_targets(run, marks[0]) for run in [*mine, *theirs]])
            interval = percentiles(self._by_seed(mine, sums) - self._by_seed(theirs, sums[len(mine) :]))
            return interval, self._what(marks[0])
        a, b = mean_per_class(mine), mean_per_class(theirs)
        if a is None or b is None or len(a) != len(b):
            return None, None
        differences = (a - b)[~np.isnan(a - b)]
        if len(differences) < 2:
            return None, None
        return percentiles(resampled_mean(differences, self.resamples, self.seed)), "classes"

    def _what(self, marks: dict[str, str]) -> str:
        by_drive = [name for name, mark in marks.items() if mark in self._drives]
        if len(by_drive) in (0, len(marks)):
            return "drives" if by_drive else "images"
        return f"drives of {', '.join(by_drive)}, images of {', '.join(n for n in marks if n not in by_drive)}"

    @staticmethod
    def _by_seed(runs: Sequence[Scored], replicates: np.ndarray) -> np.ndarray:
        """Mean over seeds of the runs' replicates, as `ScoredGroup.values` counts them, (resamples,)."""
        by_seed: dict[int, list[np.ndarray]] = {}
        for run, values in zip(runs, replicates, strict=False):
            by_seed.setdefault(run.seed, []).append(values)
        means: np.ndarray = np.mean([np.mean(values, 0) for values in by_seed.values()], 0)
        return means

    def _images(self, run: Scored) -> dict[str, str] | None:
        """Target -> what tells its images from others; None where a target's were not kept."""
        key = f"{run.run.path} {run.selection}"
        if key not in self._marks:
            targets = sorted(run.scored)
            complete = bool(targets) and all(len(run.images.get(name, ())) for name in targets)
            self._marks[key] = {name: self._mark(run, name) for name in targets} if complete else None
        return self._marks[key]

    def _mark(self, run: Scored, name: str) -> str:
        images = run.images[name]
        truth = np.ascontiguousarray(images.dense().sum(2))  # the same images have the same pixels of every class
        mark = hashlib.sha256(truth.tobytes()).hexdigest()
        drives = images.drives
        if drives is not None and 1 < len(np.unique(drives)) < len(drives):  # of one drive nothing follows for others
            self._drives[mark] = drives
        return mark

    def _mean_of_targets(self, run: Scored, marks: dict[str, str]) -> np.ndarray:
        """The run's mean of targets in every resample."""
        return np.mean([self._resampled(run, name, mark) for name, mark in marks.items()], 0)  # type: ignore[no-any-return]

    def _resampled(self, run: Scored, name: str, mark: str) -> np.ndarray:
        key = (f"{run.run.path} {run.selection}", name, f"{mark} {mark in self._drives}")
        if key not in self._means:
            self._means[key] = resampled_miou(run.images[name].dense(), self._draws(name, mark, len(run.images[name])))
        return self._means[key]

    def _draws(self, name: str, mark: str, count: int) -> np.ndarray:
        drives = self._drives.get(mark)
        key = (name, f"{mark} {drives is not None}")
        if key not in self._weights:
            own = int.from_bytes(hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:4], "big")
            self._weights[key] = image_weights(count, self.resamples, own, drives)
        return self._weights[key]
