"""A finished run as a model: ``load(run).predict(image)``."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from recyclelora.config.build import build_model, locate_weights
from recyclelora.config.compose import load_config
from recyclelora.config.run import Config
from recyclelora.data.build import class_colours
from recyclelora.data.config import DataConfig
from recyclelora.data.datasets import Dataset, digest
from recyclelora.data.identity import content_digest, state_on_disk
from recyclelora.data.labels import IGNORE
from recyclelora.data.reading import read_upright
from recyclelora.drawing.tiles import ClassColours
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.evaluation.predictions import Prediction, predict
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.state import load_trainable_state
from recyclelora.runs.checkpoint import load_checkpoint, pointed, tensors_digest
from recyclelora.runs.directory import (
    ADAPTER,
    ADAPTER_CONFIG,
    BACKBONE,
    CHECKPOINTS,
    CONFIG,
    RECORD,
    TrainedRecord,
    is_run,
)
from recyclelora.runs.identity import evaluation_identity
from recyclelora.runs.record import code_digest
from recyclelora.system.cache import of_run
from recyclelora.system.devices import resolve_accelerator
from recyclelora.system.errors import UserError
from recyclelora.system.storage import read_json, write_bytes, write_json
from recyclelora.system.typed_json import read_record

TRAINED, INITIAL = "trained/", "initial/"


WHOLE_PIXELS = 1024 * 2048
"""Up to the size of Cityscapes' images a protocol without windows shows an image in one piece."""


@dataclass(frozen=True)
class Shown:
    """How an image is shown to a model; None: as the run's test protocol has it."""

    size: int | None = None
    """its short edge in pixels; the prediction has the image's own size"""
    window: int | None = None
    """side of the square windows in pixels"""
    batch: int | None = None
    """windows that go through the model at once"""


@dataclass(frozen=True)
class TrainedModel:
    """A run's segmenter with its classes and test protocol."""

    run_dir: Path
    config: Config
    segmenter: Segmenter
    evaluator: Evaluator
    step: int
    weights_sha256: str = ""
    """of the trained tensors; empty where they come from no file"""

    @property
    def classes(self) -> ClassColours:
        """Names and colours by train id."""
        return class_colours(self.config.data)

    def predict(
        self,
        image: np.ndarray | str | Path,
        shown: Shown | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Prediction:
        """Segment one uint8 RGB image (H, W, 3), or an image file.

        A file is turned as its EXIF orientation asks for; an array is taken as it is.

        Args:
            image: of any size
            shown: how it is shown to the model; by default under the run's test protocol, as :meth:`evaluator_for` says
            advance: told of windows done
        """
        if isinstance(image, str | Path):
            image = read_upright(Path(image))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} {image.shape}")
        evaluator = self.evaluator_for((image.shape[0], image.shape[1]), shown or Shown())
        return predict(self.segmenter, evaluator, image, advance=advance)

    def evaluator_for(self, size: tuple[int, int], shown: Shown) -> Evaluator:
        """What predicts an image of ``size`` (H, W): the run's test protocol, where that is bounded.

        A protocol that shows images in one piece is meant for its datasets. What is larger than their largest is cut
        into windows of the training size, which overlap by a third as the published ones do.
        """
        protocol = self.evaluator.protocol
        if shown.size is not None:
            protocol = dataclasses.replace(protocol, fit={"": [shown.size, sys.maxsize]})
        height, width = protocol.shown_size("", size)
        if shown.window or (protocol.mode == "whole" and height * width > WHOLE_PIXELS):
            side = shown.window or min(self.config.data.augment.crop)
            protocol = dataclasses.replace(protocol, mode="slide", window=side, stride=max(1, round(2 * side / 3)))
        batch = shown.batch or self.evaluator.window_batch
        return dataclasses.replace(self.evaluator, protocol=protocol, window_batch=batch)


@dataclass(frozen=True)
class Weights:
    """The tensors that a run adds to its pretrained backbone."""

    trained: dict[str, Tensor]
    initial: dict[str, Tensor]
    step: int


def read_run_weights(run_dir: Path, checkpoint: str = "last") -> Weights:
    """Read a run's trained tensors and initial factors.

    Args:
        run_dir: the run
        checkpoint: ``last``, ``best_source`` or ``best_target``

    Raises:
        UserError: the folder is no run, has no such checkpoint, or is an import that was misread.
    """
    if checkpoint == "last" and (run_dir / ADAPTER).is_file():
        try:
            tensors = load_file(run_dir / ADAPTER)
            step = int(read_json(run_dir / ADAPTER_CONFIG)["step"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{run_dir / ADAPTER}: damaged, or not written by a run: {error}") from error
        _refuse_misread(run_dir, tensors)
        return Weights(_part(tensors, TRAINED), _part(tensors, INITIAL), step)
    folder = pointed(run_dir / CHECKPOINTS, checkpoint)
    if folder is None:
        raise UserError(f"{run_dir}: no checkpoint {checkpoint!r}; is it the directory of a run that has trained?")
    stored = load_checkpoint(folder)
    return Weights(stored.model, stored.tensors.get("initial", {}), stored.step)


def _refuse_misread(run_dir: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse what version 0.1 made of Rein's checkpoints: it took the columns of one weight for those of another order.

    Imports say since then which kind of checkpoint they come from.
    """
    if TRAINED + "backbone.model.rein.merge_queries.weight" not in tensors or not (run_dir / RECORD).is_file():
        return
    about = read_json(run_dir / RECORD)
    if about.get("origin") == "imported" and "kind" not in about["checkpoint"]:
        file = about["checkpoint"]["file"]
        raise UserError(
            f"{run_dir}: version 0.1 imported {file} with Rein's merge weight in a wrong order, so that its scores are "
            f"wrong; import it again: python import_checkpoint.py kind=rein checkpoint={file}"
        )


def write_run_weights(
    run_dir: Path, weights: Weights, config: Config, *, signature: str, weights_sha256: str | None
) -> None:
    """Write what :func:`read_run_weights` reads: all that is needed beside the pretrained weights."""
    tensors = {TRAINED + name: value.cpu() for name, value in weights.trained.items()}
    tensors |= {INITIAL + name: value for name, value in weights.initial.items()}
    write_bytes(run_dir / ADAPTER, save({name: value.contiguous() for name, value in tensors.items()}))
    about = {
        "step": weights.step,
        "signature": signature,
        "weights_sha256": weights_sha256,
        "adapter": dataclasses.asdict(config.adapter),
        "backbone": dataclasses.asdict(config.backbone),
        "decoder": dataclasses.asdict(config.decoder),
        "classes": config.data.classes.names,
    }
    write_json(run_dir / ADAPTER_CONFIG, about)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load(run: str | Path, checkpoint: str = "last", *, accelerator: str = "auto") -> TrainedModel:
    """Load a run's model in evaluation mode, with the precision it was trained in.

    Args:
        run: its directory
        checkpoint: ``last``, ``best_source`` or ``best_target``
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``

    Raises:
        UserError: not a run, no such checkpoint, or the backbone's weights are not the ones it was trained on.
    """
    run_dir = Path(run)
    if not is_run(run_dir):
        raise UserError(f"{run_dir}: not a run directory (it has no {CONFIG})")
    config = load_config(run_dir / CONFIG)
    config.cache = str(of_run(config.cache))
    if (run_dir / BACKBONE).is_file():  # wherever the directory was moved
        config.backbone.checkpoint = str(run_dir / BACKBONE)
    stored = read_run_weights(run_dir, checkpoint)
    weights = locate_weights(config.backbone)
    about = read_record(run_dir / RECORD, TrainedRecord)
    expected = about["weights_sha256"]
    if weights is not None and weights.sha256 != expected:
        raise UserError(
            f"{run_dir}: trained on weights with sha256 {expected}, but {weights.path} has {weights.sha256}"
        )
    segmenter = build_model(config, weights, initial=stored.initial, precision=about["precision"]).segmenter
    load_trainable_state(segmenter, stored.trained)
    device = torch.device(resolve_accelerator(accelerator))
    segmenter.to(device).eval().requires_grad_(False)
    evaluator = single_evaluator(config, device, about["precision"])
    return TrainedModel(run_dir, config, segmenter, evaluator, stored.step, tensors_digest(stored.trained))


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


AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def single_evaluator(config: Config, device: torch.device, precision: str, num_workers: int = 0) -> Evaluator:
    """An evaluator for one process in a resolved precision, ``32-true``, ``bf16-mixed`` or ``16-mixed``."""

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST)

    return Evaluator(
        config.data.protocol, len(config.data.classes.names), IGNORE,
        device, autocast, lambda tensor: tensor, config.trainer.eval_batch_size, num_workers,
        window_batch=config.trainer.eval_window_batch,
    )  # fmt: skip
