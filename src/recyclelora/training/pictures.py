"""The pictures of a run: which are drawn when, from which images, under which names.

While a run trains: ``augmented_crops.png`` and ``predictions_step_000000.png`` before the first step, and at each
evaluation ``predictions_step_NNNNNN.png`` of the same images and the plots, which replace those before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recyclelora.config.run import Config
from recyclelora.data.build import class_colours
from recyclelora.data.datasets import Dataset
from recyclelora.data.labels import IGNORE, PADDING
from recyclelora.data.loaders import TrainStream
from recyclelora.drawing import sheets, style
from recyclelora.evaluation import metric_plots
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import ConfusionMatrix
from recyclelora.evaluation.scores import ALONE_TITLE, SOURCE_TITLE, SOURCE_VAL, Scores
from recyclelora.models.segmenter import Segmenter
from recyclelora.runs.directory import METRICS, RunDirectory
from recyclelora.runs.metrics_log import read_points
from recyclelora.system.errors import BrokenFile
from recyclelora.system.storage import write_bytes
from recyclelora.training import run_plots as plots

STEPS = "predictions_step_"
MOST_STEPS = 20
"""So many evaluations of a run get a picture of predictions, evenly spread; the last one always does."""

CROPS, CROP_COLUMNS = 12, 3
SMALL = 300
"""Width in pixels of a view in the pictures that a run makes many of."""


@dataclass(frozen=True)
class Pictures:
    """Draws into ``figures/``; ``trainer.num_figures=0`` draws nothing."""

    config: Config
    directory: RunDirectory
    scored: Mapping[str, Dataset]
    evaluator: Evaluator
    segmenter: Segmenter

    @property
    def wanted(self) -> bool:
        """Whether anything is drawn."""
        return self.config.trainer.num_figures > 0

    @functools.cached_property
    def colours(self) -> sheets.ClassColours:
        """Of the run's classes."""
        return class_colours(self.config.data)

    @functools.cached_property
    def about(self) -> str:
        """Which run it is, for titles."""
        c = self.config
        return f"{c.adapter.name} on {c.backbone.name}, {c.data.name}, seed {c.seed}"

    # --- while a run trains -------------------------------------------------------------------------------------------

    def rewind(self, step: int) -> None:
        """Drop what a run that goes on after ``step`` draws again."""
        for path in self.directory.figures.glob(f"{STEPS}*.png"):
            if int(path.stem.removeprefix(STEPS)) > step:
                path.unlink()

    def start(self, stream: TrainStream) -> None:
        """Draw the first training crops and what the untrained model predicts."""
        if self.wanted:
            count = min(CROPS, sum(map(len, stream.sources)))
            title = f"{self.about}: the first {count} training crops, and their labels over them"
            crops = [self._as_seen(*stream[index]) for index in range(count)]
            sheet = sheets.crop_sheet(crops, self.colours, CROP_COLUMNS, title)
            self._write("augmented_crops", sheets.png(sheet))
            self._predictions(0, None)

    def _as_seen(self, image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A crop with what pads it in the colour that the normalisation turns to 0, as the model sees it."""
        mean = np.rint(255 * np.asarray(self.config.backbone.mean)).astype(np.uint8)
        outside = label == PADDING
        return np.where(outside[..., None], mean, image), np.where(outside, IGNORE, label).astype(np.uint8)

    def evaluation(self, scores: Scores, matrices: Mapping[str, ConfusionMatrix]) -> None:
        """Draw what one evaluation shows."""
        t = self.config.trainer
        number, count = -(-scores.step // t.eval_every), -(-t.max_steps // t.eval_every)
        if not self.wanted:
            return
        if number % -(-count // MOST_STEPS) == 0 or scores.step == t.max_steps:
            self._predictions(scores.step, scores)
        self._plots(scores, matrices)

    def _predictions(self, step: int, scores: Scores | None) -> None:
        """One image of every set, always the same."""
        rows = []
        for name, dataset in self.scored.items():
            if len(dataset):
                score = None if scores is None else scores.miou(name)
                rows += self._shown(name, dataset, self._spread(dataset)[:1], score)
        title = f"{self.about}: step {step:,} of {self.config.trainer.max_steps:,}"
        if scores is not None:
            title += f"  |  mIoU {_summary(scores)}"
        if rows:
            self._write(f"{STEPS}{step:06d}", sheets.png(sheets.panel(rows, self.colours, SMALL, title)))

    def _plots(self, scores: Scores, matrices: Mapping[str, ConfusionMatrix]) -> None:
        """Curves, domain gap, IoU by class and confusion as they are after an evaluation."""
        title = f"{self.about}: step {scores.step:,}"
        scored = {name: row for name, row in scores.iou_per_class.items() if self.scored[name].labelled}
        names, points = self.colours.names, read_points(self.directory.path / METRICS)
        self._write("curves", style.png(plots.curves(points, title)))
        with_scores = f"{title}: mIoU {_summary(scores)}"
        name, plot = (
            ("domain_gap", plots.domain_gap) if scored.keys() - {SOURCE_VAL} else ("validation", plots.validation)
        )
        self._write(name, style.png(plot(points, with_scores)))
        bars = plots.iou_bars(scored, names, self.colours.colours, with_scores)
        self._write("iou_bars", style.png(bars))
        self._write("iou_per_class", style.png(plots.iou_table(scored, names, title)))
        self._write("confusion", style.png(plots.confusion(_pooled(matrices), names, f"{title}: confusion")))

    # --- at its end ---------------------------------------------------------------------------------------------------

    def finish(self, scores: Scores, matrices: Mapping[str, ConfusionMatrix]) -> None:
        """Draw a panel of ``trainer.num_figures`` images of every set, an overview of all, and reliability if counted.

        Args:
            scores: of the last checkpoint, on the full sets
            matrices: what they were computed from
        """
        if not self.wanted:
            return
        if self.config.trainer.eval_images is not None:  # else the last evaluation has drawn them
            self._plots(scores, matrices)
        if "calibration" in self.evaluator.pixel_metrics:
            folder = self.directory.image_counts / str(scores.step)
            counts = {path.stem: ImageCounts.load(path).sums for path in folder.glob("*.safetensors")}
            sums = {name: counts[name]["calibration"] for name in self.scored if "calibration" in counts.get(name, {})}
            if sums:
                self._write("reliability", style.png(metric_plots.reliability(sums, self.about)))
        first_rows = []
        for name, dataset in self.scored.items():
            rows = self._shown(name, dataset, self._spread(dataset), scores.miou(name))
            if rows:
                title = f"{self.about}: {name}"
                self._write(f"predictions_{name}", sheets.png(sheets.panel(rows, self.colours, title=title)))
                first_rows.append(rows[0])
        if first_rows:
            title = f"{self.about}: mIoU {_summary(scores)}"
            self._write("overview", sheets.png(sheets.panel(first_rows, self.colours, title=title)))

    # --- images -------------------------------------------------------------------------------------------------------

    def _spread(self, dataset: Dataset) -> list[int]:
        """Fixed images spread evenly over a set."""
        length = len(dataset)
        count = min(self.config.trainer.num_figures, length)
        return [(2 * index + 1) * length // (2 * count) for index in range(count)]

    def _shown(self, name: str, dataset: Dataset, indices: list[int], score: float | None) -> list[sheets.Shown]:
        """What the model says of images of a set; those that cannot be read are named where they are scored."""
        protocol, found = self.evaluator.protocol, []
        prepared, key = protocol.prepared(dataset), protocol.key(dataset)
        name = ALONE_TITLE if name == SOURCE_VAL and not self.config.data.targets else name
        title = name if score is None else f"{name}  mIoU {100 * score:.1f} %"
        was_training = self.segmenter.training
        self.segmenter.eval()
        for index in indices:
            with contextlib.suppress(BrokenFile):
                sample = prepared.load(index)
                prediction = self.evaluator.predict(self.segmenter, [sample.image], key)[0]
                label = sample.label if dataset.labelled else None
                found.append(sheets.Shown(title, sample.image, label, prediction))
        self.segmenter.train(was_training)
        return found

    def _write(self, name: str, content: bytes) -> None:
        """Replace a picture in one go: whoever looks never sees half of one."""
        self.directory.figures.mkdir(exist_ok=True)
        write_bytes(self.directory.figures / f"{name}.png", content)


def _pooled(matrices: Mapping[str, ConfusionMatrix]) -> dict[str, np.ndarray]:
    """Counts of source validation, and of the pixels of all targets together."""
    targets: Sequence[np.ndarray] = [m.counts for name, m in matrices.items() if name != SOURCE_VAL]
    title = SOURCE_TITLE if targets else ALONE_TITLE
    pooled = {title: matrices[SOURCE_VAL].counts} if SOURCE_VAL in matrices else {}
    return pooled | ({"all targets": np.sum(targets, axis=0)} if targets else {})


def _summary(scores: Scores) -> str:
    """The two figures that matter."""
    source = "source" if scores.targets else ALONE_TITLE
    figures_of = {"targets": scores.target_mean, source: scores.miou(SOURCE_VAL)}
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in figures_of.items() if value is not None)
