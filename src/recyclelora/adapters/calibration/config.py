"""Options of the calibration pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from recyclelora.system.checks import at_least, checked

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class CalibrationConfig:
    """Which images an adapter looks at before it starts: crops of the sources, as training sees them; never targets."""

    images: int = checked(64, at_least, 1)
    """crops to look at, one image after the other"""
    seed: int = checked(0, at_least, 0)
    """of their order and crops; apart from the run's seed, so that runs of many seeds start alike"""
    folder: Optional[str] = None
    """a folder of photographs instead of the sources; for what needs no labels"""
