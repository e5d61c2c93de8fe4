"""What the commands besides ``train.py`` are asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.schemas.checks import Problem, at_least, one_of
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


EXPORT_FORMATS = ("timm", "peft", "segmenter", "onnx")


@dataclass
class ExportConfig:
    """A finished run for users without this project.

    ``size`` [height, width] fixes the image size of ``segmenter`` and ``onnx``, null leaves it open; ``precision`` is
    that of ``onnx``; ``output`` is the folder that is written, ``<run>/export/<format>`` without one.
    """

    run: str = MISSING
    format: str = MISSING
    output: Optional[str] = None
    checkpoint: str = "last"
    size: Optional[list[int]] = None
    precision: str = "fp32"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("format", self.format, EXPORT_FORMATS)
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("precision", self.precision, ("fp32", "fp16"))
        if self.precision != "fp32" and self.format != "onnx":
            yield "precision", "can be chosen with format=onnx only"
        if self.size is not None:
            if self.format not in ("segmenter", "onnx"):
                yield "size", "can be fixed with format=segmenter and format=onnx only"
            if len(self.size) != 2:
                yield "size", "must be [height, width] in pixels"
            for side in self.size:
                yield from at_least("size", side, 1)
