"""What the commands besides ``train.py`` are asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.config.run import Config, unknown_metrics
from recyclelora.config.training import ACCELERATORS, POINTERS
from recyclelora.data.config import COMMON_CORRUPTIONS, DataConfig
from recyclelora.system.checks import Problem, above_zero, at_least, checked, one_of
from recyclelora.system.plugins import plugin_names

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


MORE_CORRUPTIONS = ("all", *COMMON_CORRUPTIONS)


@dataclass
class RunConfig:
    """A finished run, at one of its checkpoints."""

    run: str = MISSING
    """a finished run's directory"""
    checkpoint: str = checked("last", one_of, POINTERS)
    """which of the run's checkpoints"""


@dataclass
class ModelConfig(RunConfig):
    """The model of a finished run, and where it computes."""

    accelerator: str = checked("auto", one_of, ACCELERATORS)
    """``auto`` takes what is there"""


@dataclass
class EvaluateConfig(ModelConfig):
    """Scoring a finished run again."""

    data: Optional[DataConfig] = None
    """whose targets are scored; null: the run's own"""
    num_workers: int = checked(2, at_least, 0)
    """processes that read images"""
    metrics: Optional[list[str]] = None
    """further metrics, built in or of installed packages; null: those of the run"""
    corruptions: Optional[list[str]] = None
    """under which the targets are scored as well, or ``[all]``"""
    severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """of these corruptions"""

    def check(self) -> Iterator[Problem]:
        for name in self.corruptions or ():
            yield from one_of("corruptions", name, MORE_CORRUPTIONS)
        if self.corruptions == []:
            yield "corruptions", "must name one, or be null"
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            yield "severities", "must be a list of 1 to 5"
        yield from unknown_metrics(self.metrics or ())


@dataclass
class PredictConfig(ModelConfig):
    """Masks, overlays and confidence for unlabelled images."""

    input: Any = MISSING
    """a folder, images, films, streams, or a list of these"""
    output: Optional[str] = None
    """folder that is written; null: inside the run"""
    size: Optional[int] = checked(None, at_least, 16)
    """short edge in pixels at which images are shown to the model; null: their own"""
    window: Optional[int] = checked(None, at_least, 16)
    """side of the squares into which larger images are cut; null: as in training"""
    batch: Optional[int] = checked(None, at_least, 1)
    """so many of these go through the model at once; null: as in the run's evaluations"""
    max_megapixels: float = checked(50.0, above_zero)
    """larger images are refused"""
    every: int = checked(1, at_least, 1)
    """of films each so-many-th frame"""
    frames: bool = False
    """whether the files of each frame of a film are written beside the film of overlays"""


@dataclass
class AnalyzeConfig(ModelConfig):
    """Looking at what training did."""

    run: Any = MISSING
    """a run directory or a list of them"""
    output: Optional[str] = None
    """folder that is written; null: ``analysis`` inside the run, or beside several"""
    features: bool = True
    """whether features are compared"""
    figures: bool = True
    """whether pictures are drawn beside the tables"""
    images: Any = None
    """folder or list whose features are compared; null: the first image of source validation and of every target"""
    subspaces: bool = True
    """whether every pretrained weight is decomposed"""
    data_subspaces: Optional[bool] = None
    """whether images are shown to the pretrained model, to see in which directions of the data the update lies; null:
    where the run looked at them before it started"""
    blocks: Optional[list[int]] = None
    """that are shown as cosine maps; null: the first, the middle and the last"""

    def check(self) -> Iterator[Problem]:
        runs = self.run if isinstance(self.run, list) else [self.run]
        if not runs or not all(isinstance(run, str) for run in runs):
            yield "run", "must be a run directory or a list of run directories"


@dataclass
class InspectConfig:
    """Looking at the data of a ``data`` option."""

    data: DataConfig = field(default_factory=DataConfig)
    """sources and targets"""
    num_workers: int = checked(4, at_least, 0)
    """processes that read images"""
    num_samples: int = checked(8, at_least, 0)
    """pictures of each dataset on the page"""
    output_dir: str = "outputs"
    """the page is ``inspect/<data>/index.html`` in it"""
    cache: str = MISSING
    """folder of what is computed once"""


@dataclass
class ReportConfig:
    """Comparing the runs of a sweep, or others."""

    sweep: Optional[str] = None
    """a sweep's folder"""
    runs: Any = None
    """a list of run directories, or a pattern"""
    reference: Optional[str] = None
    """group that the others are compared with; null: the frozen backbone, or the best"""
    selection: str = checked("last", one_of, POINTERS)
    """checkpoint that counts"""
    resamples: int = checked(1000, at_least, 0)
    """draws of the bootstrap; 0: none"""
    max_rows: int = checked(20, at_least, 1)
    """of ``table.md`` and ``table.tex``"""
    columns: Optional[list[str]] = None
    """of their scores and differences, by their headings; null: all"""
    order: Optional[list[str]] = None
    """groups that they show, in this order; null: all, the best first"""
    labels: list[str] = field(default_factory=list)
    """``name: label`` of groups and columns in them"""
    output: Optional[str] = None
    """folder that is written; null: ``report`` in the sweep"""

    def check(self) -> Iterator[Problem]:
        runs = self.runs if isinstance(self.runs, list) else [self.runs]
        if (self.sweep is None) == (self.runs is None):
            yield "sweep", "give either sweep=<sweep dir> or runs=[<run dir>,...]"
        elif self.sweep is None and (not runs or not all(isinstance(run, str) for run in runs)):
            yield "runs", "must be a run directory, a pattern, or a list of these"
        for text in self.labels:
            if ": " not in text:
                yield "labels", f"{text!r} must be <name>: <label>"


@dataclass
class RepeatConfig:
    """Training again what a finished run trained, and comparing."""

    run: str = MISSING
    """a finished run's directory"""
    output_dir: str = "outputs/repeats"
    """holds the new run"""
    data_root: Optional[str] = None
    """where the datasets are now; null: where they were"""
    folder_root: Optional[str] = None
    """where the own data are now; null: where they were"""
    cache: Optional[str] = None
    """folder of what is computed once, now; null: as then"""
    anyway: bool = False
    """whether to go on where code, packages, data or weights are others than then"""


EXPORT_FORMATS = ("timm", "peft", "segmenter", "onnx")
EXPORT_GROUP = "recyclelora.exports"
"""Entry points of this group: format -> function, see :data:`recyclelora.exchange.exports.formats.Writer`."""


@dataclass
class ExportConfig(RunConfig):
    """A finished run for users without this project."""

    format: str = MISSING
    """whose format"""
    output: Optional[str] = None
    """folder that is written; null: ``export/<format>`` inside the run"""
    size: Optional[list[int]] = None
    """[height, width] of ``segmenter`` and ``onnx`` (null leaves it open), and what the position embedding of ``timm``
    and ``peft`` is laid out for (null: as in the run)"""
    precision: str = checked("fp32", one_of, ("fp32", "fp16", "int8"))
    """of ``onnx``"""
    bench: bool = False
    """whether latency and memory of ``segmenter`` or ``onnx`` are measured"""

    def check(self) -> Iterator[Problem]:
        yield from one_of("format", self.format, EXPORT_FORMATS, plugin_names(EXPORT_GROUP))
        if self.precision != "fp32" and self.format in ("timm", "peft", "segmenter"):
            yield "precision", "can be chosen with format=onnx only"
        if self.bench and self.format in ("timm", "peft"):
            yield "bench", "is for whole models: format=segmenter or onnx"
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
    """file, as it was released"""
    kind: str = MISSING
    """whose it is"""

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        yield from one_of("kind", self.kind, tuple(KINDS))
        wanted = KINDS.get(self.kind, self.adapter.kind)
        if self.adapter.kind != wanted:
            yield "adapter.kind", f"must be {wanted} for kind={self.kind}: leave the adapter to it"
        if self.decoder.kind != "mask2former":
            yield "decoder.kind", "must be mask2former: all released checkpoints have its head"
