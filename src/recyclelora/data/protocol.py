"""The test protocol: how images are shown to a model that is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from recyclelora.system.checks import Problem, above_zero, at_least, checked, one_of

if TYPE_CHECKING:
    from recyclelora.data.datasets import Dataset


@dataclass
class ProtocolConfig:
    """How images are scored. ``sizes``, ``fit`` and ``half`` know a set by its dataset or by its name in results."""

    name: str = MISSING
    """in results"""
    mode: str = checked("slide", one_of, ("slide", "whole"))
    """``slide`` a window over an image, or show it ``whole``"""
    window: int = checked(512, at_least, 1)
    """side of the sliding window in pixels"""
    stride: int = 341
    """pixels from one window to the next"""
    sizes: dict[str, list[int]] = field(default_factory=dict)
    """dataset -> [height, width] that its images are resized to"""
    fit: dict[str, list[int]] = field(default_factory=dict)
    """dataset -> [short edge, long edge] that its images are scaled into, keeping their shape"""
    half: list[str] = field(default_factory=list)
    """datasets that are scored on half-size copies, masks too"""
    scales: list[float] = field(default_factory=lambda: [1.0])
    """of the shown size, over which probabilities are averaged"""
    flip: bool = False
    """whether probabilities are averaged over mirror images, too"""

    def check(self) -> Iterator[Problem]:
        """Values that no image could be shown under."""
        if not 1 <= self.stride <= self.window:
            yield "stride", f"must lie between 1 and the window, {self.window}"
        if not self.scales:
            yield "scales", "must hold at least one factor, such as 1.0"
        for scale in self.scales:
            yield from above_zero("scales", scale)
        for dataset, size in self.sizes.items():
            if len(size) != 2 or min(size) < 1:
                yield f"sizes.{dataset}", "must be [height, width] in pixels"
        for dataset, size in self.fit.items():
            if len(size) != 2 or not 1 <= size[0] <= size[1]:
                yield f"fit.{dataset}", "must be [short edge, long edge] in pixels"
            if dataset in self.sizes:
                yield f"fit.{dataset}", "cannot be given beside sizes"

    @property
    def augmented(self) -> bool:
        """Whether there are several views to average."""
        return self.flip or list(self.scales) != [1.0]

    def key(self, dataset: Dataset) -> str:
        """The name by which the protocol knows a dataset: the one in results where it names that, else the dataset's.

        A set that carries another dataset's name in results is not taken for it.
        """
        from recyclelora.data.config import dataset_names

        named = {*self.sizes, *self.fit, *self.half} - set(dataset_names())
        return dataset.label if dataset.label in named else dataset.name

    def prepared(self, dataset: Dataset) -> Dataset:
        """The dataset as it is scored: itself, or its half-size copies."""
        from recyclelora.data.datasets import HalfSize

        return HalfSize(dataset) if self.key(dataset) in self.half else dataset

    def shown_size(self, dataset: str, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) at which an image of ``size`` (H, W) is shown to the model."""
        if dataset in self.fit:
            return fitted(size, self.fit[dataset])
        high, wide = self.sizes.get(dataset, size)
        return high, wide


def fitted(size: tuple[int, int], bounds: Sequence[int]) -> tuple[int, int]:
    """``size`` (H, W) scaled, up or down, until its short or its long edge reaches ``bounds`` (short, long)."""
    scale = min(bounds[0] / min(size), bounds[1] / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))
