"""Scoring a finished run again: every question (weights, targets, corruption, protocol ...) has a file of its own."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recyclelora.config.commands import EvaluateConfig
from recyclelora.data.build import build_datasets, build_targets, class_colours
from recyclelora.data.config import DataConfig
from recyclelora.data.datasets import Dataset, digest
from recyclelora.data.identity import content_digest, state_on_disk
from recyclelora.data.open import mask_kinds
from recyclelora.drawing import style
from recyclelora.evaluation import metric_plots
from recyclelora.evaluation.evaluator import Evaluator, Stopped
from recyclelora.evaluation.extra_metrics import ExtraMetrics
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.load import TrainedModel, load, single_evaluator
from recyclelora.evaluation.metrics import ConfusionMatrix
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.evaluation.predictions import predict_unlabelled
from recyclelora.evaluation.scores import SOURCE_VAL, Scores, incomplete
from recyclelora.evaluation.severity import corrupted, summarised
from recyclelora.runs.directory import EVALUATIONS, PARTIAL, PREDICTIONS, RECORD
from recyclelora.runs.identity import evaluation_identity
from recyclelora.runs.record import code_digest
from recyclelora.system.errors import BrokenFile, UserError
from recyclelora.system.progress import Reporter
from recyclelora.system.stopping import StopRequest
from recyclelora.system.storage import folder_inside, write_json
from recyclelora.system.typed_json import read_object


@dataclass(frozen=True)
class Evaluation:
    """The answer, and the file it is in."""

    title: str
    path: Path
    summary: dict[str, Any]
    mean: float | None
    source_classes: list[str] | None


def rescore(config: EvaluateConfig, reporter: Reporter) -> Evaluation:
    """Score a run on its own targets or on those of ``config.data``, and write what was found.

    A scoring that was stopped goes on where it was.

    Raises:
        UserError: other classes, or images cannot be read; all others are scored.
        Interrupted: a signal asked to stop; what was counted is kept.
    """
    run = Path(config.run)
    model = load(run, config.checkpoint, accelerator=config.accelerator)
    data = config.data or model.config.data
    names = data.classes.names
    if names != model.config.data.classes.names:
        raise UserError(f"data={data.name} has other classes than the run was trained with")
    cache, clean = model.config.cache, [target.label for target in data.targets]
    if config.corruptions:
        data = corrupted(data, config.corruptions, config.severities)
    only_targets = config.data or config.corruptions
    scored = build_targets(data, cache) if only_targets else build_datasets(data, cache).scored
    about = read_object(run / RECORD)
    question = Question(model, data, scored, about["precision"])
    name = question.name(config.checkpoint)
    evaluations = folder_inside(run, EVALUATIONS)
    path, kept = evaluations / f"{name}.json", evaluations / PARTIAL / name
    began = time.perf_counter()
    wanted = model.config.metrics if config.metrics is None else config.metrics
    metrics = ExtraMetrics(wanted, names, reporter.warn)
    evaluator = _evaluator(question, config.num_workers, metrics)
    matrices, images = _counted(question, evaluator, kept, folder_inside(run, PREDICTIONS) / name, reporter)
    shutil.rmtree(kept, ignore_errors=True)
    scores = Scores.of(model.step, matrices)
    held = about.get("source_classes")
    figures = {name: row for name, counts in images.items() if (row := metrics.of(counts))}
    severity = (
        {"severity": summarised(clean, scores.targets, config.corruptions, config.severities)}
        if config.corruptions else {}
    )  # fmt: skip
    summary = {
        **scores.summary(None if held is None else {names.index(held_name) for held_name in held}),
        "step": scores.step,
        "checkpoint": config.checkpoint,
        "masks": mask_kinds(scored),
        "iou_per_class": scores.iou_per_class,
        **({"metrics": figures} if figures else {}),
        **severity,
        **question.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(path, summary)
    _draw(path, summary, images, f"{run.name} on {data.name}")
    value = scores.target_mean if data.targets else scores.miou(SOURCE_VAL)
    return Evaluation(f"{run.name} on {data.name}", path, summary, value, held)


def _draw(path: Path, summary: dict[str, Any], images: dict[str, ImageCounts], about: str) -> None:
    """The figures that an answer has data for, beside it."""
    sums = {name: counts.sums["calibration"] for name, counts in images.items() if "calibration" in counts.sums}
    if sums:
        style.save(metric_plots.reliability(sums, about), path.with_name(f"{path.stem}-reliability.png"))
    if "severity" in summary:
        style.save(metric_plots.severity(summary["severity"], about), path.with_name(f"{path.stem}-severity.png"))


def _evaluator(question: Question, num_workers: int, metrics: ExtraMetrics) -> Evaluator:
    model = question.model
    run_config = dataclasses.replace(model.config, data=question.data)
    device = next(model.segmenter.parameters()).device
    evaluator = single_evaluator(run_config, device, question.precision, num_workers)
    return dataclasses.replace(evaluator, pixel_metrics=metrics.of_pixels)


def _counted(
    question: Question, evaluator: Evaluator, kept: Path, predictions: Path, reporter: Reporter
) -> tuple[dict[str, ConfusionMatrix], dict[str, ImageCounts]]:
    """The matrix of every set and of its images, with ``kept`` counts where there are any; no labels: predicted only.

    Raises:
        UserError: images cannot be read; all others are counted.
        Interrupted: a signal asked to stop; what was counted is kept.
    """
    model, scored = question.model, question.scored
    matrices: dict[str, ConfusionMatrix] = {}
    images = {name: ImageCounts(evaluator.num_classes) for name in scored}
    broken: list[BrokenFile] = []
    stop = StopRequest()
    try:
        with stop:
            with reporter.bar("evaluating", sum(map(len, scored.values()))) as update:
                for key, dataset in scored.items():
                    partial = question.kept(kept, key, evaluator.batch_size)
                    matrices[key] = evaluator(
                        model.segmenter, dataset, update, partial, images[key], broken, stop.requested
                    )
            colours = class_colours(question.data)
            unread = predict_unlabelled(
                model.segmenter, evaluator, scored, predictions, colours, reporter, stop.requested
            )
    except Stopped:
        raise stop.interrupted("; what was counted is kept: the same command goes on from there") from None
    if broken or unread:
        raise incomplete([*broken, *unread], "nothing is written yet")
    return matrices, images


@dataclass(frozen=True)
class Question:
    """What an evaluation asks of a model; whatever changes the answer changes its identity."""

    model: TrainedModel
    data: DataConfig
    scored: dict[str, Dataset]
    precision: str
    """``32-true``, ``bf16-mixed`` or ``16-mixed``"""

    @functools.cached_property
    def contents(self) -> dict[str, str]:
        """Digest of every scored set: its files, and how they are read."""
        return {name: content_digest(dataset) for name, dataset in self.scored.items()}

    @property
    def root(self) -> str:
        """Where the data lie."""
        given = self.data.root if self.data.folder is None else self.data.folder.root
        return str(Path(given).expanduser().absolute())

    @functools.cached_property
    def identity(self) -> str:
        """64 hex digits."""
        return self._identity(self.contents | {"place of the data": self.root})

    def name(self, checkpoint: str) -> str:
        """Of its files: readable, and another one for every other question."""
        return f"{self.data.name}-{self.data.protocol.name}-{checkpoint}-{self.identity[:12]}"

    def kept(self, folder: Path, name: str, batch_size: int) -> PartialCounts:
        """The counts of one set that are kept while the scoring is not done.

        They are not used any more when the code or the time of a file has changed.
        """
        key = f"{self._identity({name: self.contents[name]})} {state_on_disk(self.scored[name])} {code_digest()}"
        return PartialCounts(folder / f"{name}.json", f"{key} {batch_size}")

    def to_json(self) -> dict[str, Any]:
        """What an answer's file tells of its question."""
        return {
            "data": self.data.name,
            "protocol": self.data.protocol.name,
            "protocol_settings": dataclasses.asdict(self.data.protocol),
            "datasets": {
                config.label: dataclasses.asdict(config)
                for config in self.data.targets
            } | ({"source_val": dataclasses.asdict(self.data.source_val)} if "source_val" in self.scored else {}),
            "classes": self.data.classes.names,
            "dataset_digest": digest(list(self.scored.values())),
            "scored_digests": self.contents,
            "root": self.root,
            "precision": self.precision,
            "trained_sha256": self.model.weights_sha256,
            "identity": self.identity,
        }  # fmt: skip

    def _identity(self, sets: dict[str, str]) -> str:
        protocol = dataclasses.asdict(self.data.protocol)
        return evaluation_identity(self.model.weights_sha256, sets, protocol, self.data.classes.names, self.precision)
