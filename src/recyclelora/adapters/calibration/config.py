"""Options of the calibration pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from recyclelora.system.checks import Problem, at_least

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class CalibrationConfig:
    """Which images an adapter looks at before it starts: crops of the sources, as training sees them; never targets."""

    images: int = 64
    """crops to look at, one image after the other"""
    seed: int = 0
    """of their order and crops; apart from the run's seed, so that runs of many seeds start alike"""
    folder: Optional[str] = None
    """a folder of photographs instead of the sources; for what needs no labels"""

    def check(self) -> Iterator[Problem]:
        yield from at_least("images", self.images, 1)
        yield from at_least("seed", self.seed, 0)
