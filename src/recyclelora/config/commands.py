"""What the commands besides ``train.py`` are asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.config.run import Config
from recyclelora.config.training import ACCELERATORS
from recyclelora.data.config import DataConfig
from recyclelora.system.checks import Problem, above_zero, at_least, one_of
from recyclelora.system.plugins import installed

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
        yield from at_least("num_workers", self.num_workers, 0)


@dataclass
class PredictConfig:
    """Masks, overlays and confidence for unlabelled images; ``input`` is a folder or a list of images.

    ``size`` is the short edge in pixels at which images are shown to the model (null: their own), ``window`` the side
    of the squares into which larger images are cut (null: as in training), ``batch`` how many of these go through the
    model at once (null: as in the run's evaluations). Images of more than ``max_megapixels`` are refused.
    """

    run: str = MISSING
    input: Any = MISSING
    output: Optional[str] = None
    checkpoint: str = "last"
    accelerator: str = "auto"
    size: Optional[int] = None
    window: Optional[int] = None
    batch: Optional[int] = None
    max_megapixels: float = 50.0

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)
        for name, least in (("size", 16), ("window", 16), ("batch", 1)):
            if getattr(self, name) is not None:
                yield from at_least(name, getattr(self, name), least)
        yield from above_zero("max_megapixels", self.max_megapixels)


@dataclass
class AnalyzeConfig:
    """Looking at what training did; ``run`` is a run directory or a list of them.

    ``images`` is a folder or a list whose features are compared (null: the first image of source validation and of
    every target; ``features=false``: none), ``subspaces`` decomposes every pretrained weight, ``blocks`` are shown as
    cosine maps (null: the first, the middle and the last), ``figures=false`` writes tables only.
    """

    run: Any = MISSING
    output: Optional[str] = None
    checkpoint: str = "last"
    features: bool = True
    figures: bool = True
    images: Any = None
    subspaces: bool = True
    blocks: Optional[list[int]] = None
    accelerator: str = "auto"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        runs = self.run if isinstance(self.run, list) else [self.run]
        if not runs or not all(isinstance(run, str) for run in runs):
            yield "run", "must be a run directory or a list of run directories"
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("accelerator", self.accelerator, ACCELERATORS)


@dataclass
class InspectConfig:
    """Looking at the data of a ``data`` option; ``num_samples`` pictures of each dataset are shown on the page."""

    data: DataConfig = field(default_factory=DataConfig)
    num_workers: int = 4
    num_samples: int = 8
    output_dir: str = "outputs"
    cache: str = MISSING

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from at_least("num_workers", self.num_workers, 0)
        yield from at_least("num_samples", self.num_samples, 0)


@dataclass
class ReportConfig:
    """Comparing the runs of a ``sweep`` folder, or ``runs``: a list of run directories or a pattern.

    ``reference`` names the group that the others are compared with, ``selection`` the checkpoint that counts,
    ``resamples`` the draws of the bootstrap (0: none), ``max_rows`` the rows of ``table.md`` and ``table.tex``.
    """

    sweep: Optional[str] = None
    runs: Any = None
    reference: Optional[str] = None
    selection: str = "last"
    resamples: int = 1000
    max_rows: int = 20
    output: Optional[str] = None

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        runs = self.runs if isinstance(self.runs, list) else [self.runs]
        if (self.sweep is None) == (self.runs is None):
            yield "sweep", "give either sweep=<sweep dir> or runs=[<run dir>,...]"
        elif self.sweep is None and (not runs or not all(isinstance(run, str) for run in runs)):
            yield "runs", "must be a run directory, a pattern, or a list of these"
        yield from one_of("selection", self.selection, ("last", "best_source", "best_target"))
        yield from at_least("resamples", self.resamples, 0)
        yield from at_least("max_rows", self.max_rows, 1)


@dataclass
class RepeatConfig:
    """Training again what a finished ``run`` trained, in ``output_dir``, and comparing.

    ``data_root``, ``folder_root`` and ``cache`` say where these are now, if not where they were; ``anyway`` goes on
    where code, packages, data or weights are others than then.
    """

    run: str = MISSING
    output_dir: str = "outputs/repeats"
    data_root: Optional[str] = None
    folder_root: Optional[str] = None
    cache: Optional[str] = None
    anyway: bool = False


EXPORT_FORMATS = ("timm", "peft", "segmenter", "onnx")
EXPORT_GROUP = "recyclelora.exports"
"""Entry points of this group: format -> function, see :data:`recyclelora.exchange.exports.formats.Writer`."""


def installed_formats() -> tuple[str, ...]:
    """Those that installed packages add."""
    return tuple(entry.name for entry in installed(EXPORT_GROUP))


@dataclass
class ExportConfig:
    """A finished run for users without this project.

    ``size`` [height, width] fixes the image size of ``segmenter`` and ``onnx``, null leaves it open; it is what the
    position embedding of ``timm`` and ``peft`` is laid out for, null the run's; ``precision`` is that of ``onnx``;
    ``output`` is the folder that is written, ``<run>/export/<format>`` without one.
    """

    run: str = MISSING
    format: str = MISSING
    output: Optional[str] = None
    checkpoint: str = "last"
    size: Optional[list[int]] = None
    precision: str = "fp32"

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from one_of("format", self.format, EXPORT_FORMATS, installed_formats())
        yield from one_of("checkpoint", self.checkpoint, ("last", "best_source", "best_target"))
        yield from one_of("precision", self.precision, ("fp32", "fp16"))
        if self.precision != "fp32" and self.format in ("timm", "peft", "segmenter"):
            yield "precision", "can be chosen with format=onnx only"
        if self.size is not None:
            if len(self.size) != 2:
                yield "size", "must be [height, width] in pixels"
            for side in self.size:
                yield from at_least("size", side, 1)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """``size``, once it is checked."""
        return None if self.size is None else (self.size[0], self.size[1])


KINDS = {"rein": "rein", "soma": "low_rank", "recyclelora": "low_rank"}
"""Whose checkpoints can be imported, and the kind of adapter that they become."""


@dataclass
class ImportConfig(Config):
    """Turning a released checkpoint into a run directory; everything but these two keys describes that run."""

    checkpoint: str = MISSING
    kind: str = MISSING

    def check(self) -> Iterator[Problem]:
        """Yield every bad value."""
        yield from super().check()
        yield from one_of("kind", self.kind, tuple(KINDS))
        wanted = KINDS.get(self.kind, self.adapter.kind)
        if self.adapter.kind != wanted:
            yield "adapter.kind", f"must be {wanted} for kind={self.kind}: leave the adapter to it"
        if self.decoder.kind != "mask2former":
            yield "decoder.kind", "must be mask2former: all released checkpoints have its head"
