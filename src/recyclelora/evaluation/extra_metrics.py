"""Further metrics: figures of a scored set beside mIoU, from what was counted of its images."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from recyclelora.config.run import METRICS, OWN_METRICS
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.pixel_metrics import PIXEL_METRICS, PixelMetric, Pixels
from recyclelora.system.plugins import plugins

Figures = dict[str, dict[str, float]]
"""Scored set -> figure -> value."""

NAME = re.compile(r"(?!loss|miou$|final_|metrics$)[A-Za-z][\w.+-]*")
"""Of a figure: it names curves beside those of mIoU and of the losses."""


class Metric(Protocol):
    """What an entry point of the group ``recyclelora.metrics`` names; or a :class:`PixelMetric`."""

    def __call__(self, matrix: np.ndarray, images: ImageCounts, classes: Sequence[str]) -> Mapping[str, float]:
        """Figures of one set by name; what is not finite is left out.

        Args:
            matrix: pixels of the set, int64 (K, K): rows are the ground truth, columns the prediction
            images: the same of every single image, ``images.dense()`` is int64 (images, K, K)
            classes: K names by train id
        """


@dataclass(frozen=True)
class ExtraMetrics:
    """The metrics that ``metrics=[...]`` names; ``warn`` hears of those that fail, which ends nothing."""

    names: Sequence[str]
    classes: Sequence[str]
    warn: Callable[[str], None]

    @cached_property
    def _offered(self) -> dict[str, Metric | PixelMetric]:
        return PIXEL_METRICS | plugins(METRICS, OWN_METRICS)

    @cached_property
    def of_pixels(self) -> dict[str, PixelMetric]:
        """Those that are to look at every image's probabilities while it is scored."""
        offered = {name: self._offered.get(name) for name in self.names}
        return {
            name: metric if name in PIXEL_METRICS else Guarded(name, metric, self.warn)  # type: ignore[misc,arg-type]
            for name, metric in offered.items() if hasattr(metric, "count")
        }  # fmt: skip

    def of(self, images: ImageCounts) -> dict[str, float]:
        """The figures of one set; none where nothing was counted."""
        matrix, found = images.total(), dict[str, float]()
        for name in self.names if matrix.any() else ():
            try:
                if name not in self._offered:
                    raise LookupError("no installed package offers it")
                figures = {key: float(value) for key, value in self._figures(name, matrix, images).items()}
                wrong = [key for key in figures if not NAME.fullmatch(key)]
                if wrong:
                    raise ValueError(f"{wrong[0]!r} cannot name a figure")
                found |= {key: value for key, value in figures.items() if math.isfinite(value)}
            except Exception as error:  # whatever a foreign function raises: hours of training are worth more
                self.warn(f"metric {name} is left out: {type(error).__name__}: {error}")
        return found

    def _figures(self, name: str, matrix: np.ndarray, images: ImageCounts) -> Mapping[str, float]:
        if name not in self.of_pixels:
            return self._offered[name](matrix, images, self.classes)  # type: ignore[call-arg,arg-type]
        if name not in images.sums:
            raise LookupError(f"it was not asked for when this was scored; evaluate run=<run> metrics=[{name}] does it")
        return self.of_pixels[name](images.sums[name], self.classes)

    def of_folder(self, folder: Path) -> Figures:
        """Of every set whose images' counts lie in ``<folder>/<set>.safetensors``."""
        paths = sorted(folder.glob("*.safetensors")) if self.names else []
        found = {path.stem: self.of(ImageCounts.load(path)) for path in paths}
        return {name: figures for name, figures in found.items() if figures}


@dataclass
class Guarded:
    """A pixel metric of another package: where it fails there are no figures, and the scoring goes on."""

    name: str
    metric: PixelMetric
    warn: Callable[[str], None]

    def size(self, num_classes: int) -> int:
        """Numbers that are kept of an image."""
        return self.metric.size(num_classes)

    def count(self, pixels: Pixels) -> np.ndarray:
        """Of one image, float64 (size,); NaN where the metric fails."""
        size = self.size(len(pixels.probabilities))
        try:
            found = np.asarray(self.metric.count(pixels), np.float64)
            if found.shape != (size,):
                raise ValueError(f"counted {found.shape}, not ({size},)")
            return found
        except Exception as error:  # whatever a foreign function raises: hours of training are worth more
            self.warn(f"metric {self.name} is left out: {type(error).__name__}: {error}")
            return np.full(size, math.nan)

    def __call__(self, sums: np.ndarray, classes: Sequence[str]) -> Mapping[str, float]:
        """Figures of one set by name; none where it has failed."""
        return {} if np.isnan(sums).any() else self.metric(sums, classes)


def points(figures: Figures, prefix: str = "") -> dict[str, float]:
    """``<figure>/<set>`` -> value, for the curves."""
    return {f"{prefix}{key}/{name}": value for name, row in figures.items() for key, value in row.items()}
