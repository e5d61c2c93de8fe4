"""From run directories to their analysis: load, measure, look at images, write, and tell MLflow."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from recyclelora.adapters.changes import changed_layers
from recyclelora.adapters.controls.config import FrozenConfig
from recyclelora.adapters.state import low_rank_layers
from recyclelora.config.build import build_backbone, calibration_of, locate_weights, user_errors
from recyclelora.config.commands import AnalyzeConfig
from recyclelora.config.run import Config
from recyclelora.data.images import list_images
from recyclelora.data.open import open_all
from recyclelora.data.reading import read_upright
from recyclelora.evaluation.load import TrainedModel, load
from recyclelora.models.backbones.timm import TimmBackbone
from recyclelora.models.shown import ShownImages
from recyclelora.reports.analysis import compare_figures, run_figures
from recyclelora.reports.analysis.compare import Measurement, by_configuration, overlaps, run_labels
from recyclelora.reports.analysis.data_shares import add_data_shares
from recyclelora.reports.analysis.feature_figures import captions, feature_change, feature_picture
from recyclelora.reports.analysis.features import LevelView, compare_features, feature_rows, fitted
from recyclelora.reports.analysis.measure import Measured, measure
from recyclelora.reports.analysis.summary import comparison, group_table, run_table, summary
from recyclelora.reports.analysis.tables import Tables, write_csv
from recyclelora.reports.records import read_run
from recyclelora.runs.directory import ANALYSIS, is_finished, outputs_of
from recyclelora.system.devices import exact_device
from recyclelora.system.errors import UserError, first_line
from recyclelora.system.progress import Reporter
from recyclelora.system.storage import folder_inside, write_json
from recyclelora.tracking.process import send

Look = Callable[[Config, str], ShownImages]
"""The images that a run's adapter looked at, for a device; raises a UserError where they are not on this machine."""


class NothingToAnalyse(UserError):
    """A run whose method leaves the backbone as it was."""


@dataclass(frozen=True)
class Opened:
    """A run's model beside the pretrained backbone it started from."""

    model: TrainedModel
    pretrained: TimmBackbone
    weights_sha256: str | None

    @property
    def config(self) -> Config:
        """The run's."""
        return self.model.config

    @property
    def adapted(self) -> nn.Module:
        """The backbone with its adapters."""
        return self.model.segmenter.backbone

    @property
    def label(self) -> str:
        """What figures say of the run."""
        c = self.config
        return f"{title(c)}, {c.backbone.name}, {c.data.name}, seed {c.seed}, step {self.model.step:,}"


def title(config: Config) -> str:
    """Adapter and ranks, such as ``recyclelora 32+4``."""
    parts = (getattr(config.adapter, "main", None), getattr(config.adapter, "sub", None))
    ranks = "+".join(str(branch.rank) for branch in parts if branch is not None)
    return f"{config.adapter.name} {ranks}".rstrip()


def open_run(run: str, config: AnalyzeConfig) -> Opened:
    """Load a run and its pretrained backbone.

    Raises:
        UserError: no run, no such checkpoint, or other weights than it was trained on.
        NothingToAnalyse: the backbone was frozen.
    """
    model = load(run, config.checkpoint, accelerator=config.accelerator)
    if isinstance(model.config.adapter, FrozenConfig):
        raise NothingToAnalyse(f"{run}: adapter={model.config.adapter.name} changes nothing in the backbone to analyse")
    with user_errors():
        weights = locate_weights(model.config.backbone)
        pretrained = build_backbone(model.config, weights)
    device = next(model.segmenter.parameters()).device
    pretrained.to(device).eval().requires_grad_(False)
    return Opened(model, pretrained, weights.sha256 if weights else None)


def measure_run(opened: Opened, config: AnalyzeConfig, look: Look, reporter: Reporter) -> Measured:
    """Everything that can be measured on the weights."""
    model, pretrained = opened.adapted.model, opened.pretrained.model
    assert isinstance(model, nn.Module)
    device = next(pretrained.parameters()).device
    exact = exact_device(device)
    count = sum(1 for _ in low_rank_layers(model)) or sum(isinstance(m, nn.Linear) for m in pretrained.modules())
    depth = len(pretrained.blocks)
    blocks = config.blocks if config.blocks is not None else sorted({0, (depth - 1) // 2, depth - 1})
    with user_errors(), reporter.bar(f"measuring {title(opened.config)}", count) as update:
        layers = changed_layers(model, pretrained, exact)
        found = measure(layers, map_blocks=blocks, subspaces=config.subspaces, progress=update)
    wanted = config.data_subspaces
    if wanted is None:
        wanted = config.subspaces and calibration_of(opened.config) is not None
    if wanted and found.tables:
        try:
            images = look(opened.config, str(device))
        except UserError as error:
            reporter.warn(f"no shares in the directions of the data: {first_line(error)}")
            return found
        with user_errors(), reporter.bar("looking at images", 1):
            add_data_shares(found, model, opened.pretrained, opened.config, images, exact)
    return found


def _output(config: AnalyzeConfig, room: Path, name: str) -> Path:
    """The folder asked for, or one in ``room`` without what an earlier analysis, perhaps of other weights, left."""
    folder = Path(config.output) if config.output else folder_inside(room, name, "give output=<folder>")
    folder.mkdir(parents=True, exist_ok=True)
    if config.output is None:
        for stale in [*folder.glob("*.png"), *folder.glob("*.csv"), *folder.glob("summary.json")]:
            stale.unlink()
    return folder


# --- one run ----------------------------------------------------------------------------------------------------------


def analyze_run(run: str, config: AnalyzeConfig, look: Look) -> None:
    """Tables, figures and ``summary.json`` of one run."""
    began = time.perf_counter()
    reporter = Reporter()
    opened = open_run(run, config)
    folder = _output(config, Path(run), ANALYSIS)
    measured = measure_run(opened, config, look, reporter)
    if config.figures and measured.tables:
        with reporter.bar("drawing", 1):
            run_figures.draw(measured, folder, opened.label)
    if config.features:
        _features(opened, config, measured.tables, folder, reporter)
    for name, rows in measured.tables.items():
        write_csv(folder / f"{name}.csv", {"": rows}, with_run=False)
    about = {
        "run": Path(run).name,
        "adapter": opened.config.adapter.name,
        "backbone": opened.config.backbone.name,
        "seed": opened.config.seed,
        "checkpoint": config.checkpoint,
        "step": opened.model.step,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(folder / "summary.json", summary(about, measured.tables))
    if measured.tables.get("rank"):
        reporter.table(run_table(opened.label, measured.tables))
    else:
        reporter.note(f"{run}: no linear layer of the backbone has changed; only its features can be compared")
    reporter.note(f"tables and figures: {folder}")
    if config.output is None and opened.config.tracking.mlflow:
        _tell_mlflow(Path(run), reporter)


def _features(opened: Opened, config: AnalyzeConfig, tables: Tables, folder: Path, reporter: Reporter) -> None:
    """Pictures and numbers of how the features of some images changed."""
    images = dict(_images(opened.config, config.images, reporter))
    segmenter = opened.model.segmenter
    names = captions(images)
    with reporter.bar("comparing features", len(images)) as update:
        for name, image in images.items():
            shown = fitted(image, _shown_size(opened.config, image), opened.pretrained.patch_size)
            views: list[LevelView] = compare_features(
                shown, opened.adapted, opened.pretrained, segmenter.mean, segmenter.std
            )
            if config.figures:
                feature_picture(shown, views, folder / names[name], name, opened.label)
            tables.setdefault("features", []).extend(feature_rows(name, views))
            update(1)
    if config.figures and images:
        feature_change(tables["features"], folder / "feature_change.png", opened.label)


def _shown_size(config: Config, image: np.ndarray) -> tuple[int, int]:
    """The size at which a run's features of an image are looked at: the image's own where it is scored as a whole and
    the position embedding is right for any size, else the one that is laid out."""
    if config.data.protocol.mode == "whole" and config.backbone.positions == "pretrained":
        return image.shape[0], image.shape[1]
    height, width = config.backbone.image_size or config.data.augment.crop
    return height, width


def _images(config: Config, given: Any, reporter: Reporter) -> Iterator[tuple[str, np.ndarray]]:
    """The images asked for, or the first of source validation and of every target that is on this machine."""
    if given is not None:
        for path, name in list_images(given).items():
            yield name, read_upright(path)
        return
    for name, wanted in {"source_val": config.data.source_val, **{t.label: t for t in config.data.targets}}.items():
        try:
            (dataset,) = open_all([wanted], config.data, config.cache)
            yield name, dataset.load(0).image
        except UserError as error:
            reporter.warn(f"no features of {name}: {first_line(error)}")


def _tell_mlflow(run: Path, reporter: Reporter) -> None:
    """Send the analysis of a tracked run; one that has no result yet is sent by its own training."""
    if not is_finished(run):
        reporter.note("the run has no result yet: MLflow gets the analysis when it goes on")
        return
    failure = send(run)
    if failure is not None:
        reporter.warn(f"MLflow does not have the analysis ({failure}); later: recyclelora track sync {run}")


# --- several runs -----------------------------------------------------------------------------------------------------


def compare_runs(runs: Sequence[str], config: AnalyzeConfig, look: Look) -> None:
    """Tables, figures and ``summary.json`` of several runs side by side; frozen ones are left out."""
    reporter = Reporter()
    measurements = []
    for run in runs:
        try:
            opened = open_run(run, config)
        except NothingToAnalyse as error:
            reporter.warn(str(error))
            continue
        measured = measure_run(opened, config, look, reporter)
        measurements.append(_measurement(run, opened, measured))
    measurements = [m for m in measurements if m.tables]
    if not measurements:
        raise UserError("run: none of these runs has changed a weight of its backbone")
    groups = by_configuration(measurements)
    labels = run_labels(groups)
    found = overlaps(labels)
    folder = _output(config, *_comparison_folder(runs, [g.config["adapter.name"] for g in groups]))
    if config.figures:
        with reporter.bar("drawing", 1):
            compare_figures.draw(groups, found, labels, folder)
    for table in dict.fromkeys(name for m in measurements for name in m.tables):
        rows = {label: m.tables.get(table, []) for label, m in labels.items()}
        write_csv(folder / f"{table}.csv", rows, with_run=True)
    write_json(folder / "summary.json", comparison(groups, found))
    reporter.table(group_table("means over all layers", groups))
    reporter.note(f"tables and figures: {folder}")


def _measurement(run: str, opened: Opened, measured: Measured) -> Measurement:
    path = Path(run).resolve()
    weights = opened.weights_sha256
    return Measurement(path.name, read_run(path).config, opened.config.seed, weights, measured.tables, measured.spaces)


def _comparison_folder(runs: Sequence[str], adapters: Sequence[str]) -> tuple[Path, str]:
    """``outputs/analysis/<adapters>-<hash of the runs>``, in the outputs that hold the first run."""
    paths = [Path(run).resolve() for run in runs]
    outputs = outputs_of(paths[0]) or Path("outputs")
    digest = hashlib.sha256("\n".join(sorted(path.name for path in paths)).encode()).hexdigest()[:8]
    names = "-".join(dict.fromkeys(adapters))
    return outputs / ANALYSIS, f"{names[:60]}-{digest}"
