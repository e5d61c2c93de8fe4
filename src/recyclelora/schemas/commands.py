"""What the commands besides ``train.py`` are asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.schemas.checks import Problem, one_of
from recyclelora.schemas.data import DataConfig
from recyclelora.schemas.training import ACCELERATORS

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class EvaluateConfig:
    """Scoring a finished run again, on its own targets or on those of another ``data`` option."""

    run: str = MISSING
    data: Optional[DataConfig] = None
    checkpoint: str = "last"
    num_workers: int = 2
    accelerator: str = "auto"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)


@dataclass
class PredictConfig:
    """Masks, overlays and confidence for unlabelled images; ``input`` is a folder or a list of images."""

    run: str = MISSING
    input: Any = MISSING
    output: Optional[str] = None
    checkpoint: str = "last"
    accelerator: str = "auto"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)
