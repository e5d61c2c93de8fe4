"""A finished run as a model: ``load(run).predict(image)``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from recyclelora.config.build import build_model, locate_weights
from recyclelora.config.compose import load_config
from recyclelora.config.run import Config
from recyclelora.data.build import class_colours
from recyclelora.data.labels import IGNORE
from recyclelora.data.reading import read_upright
from recyclelora.drawing.sheets import ClassColours
from recyclelora.evaluation.evaluator import Evaluator
from recyclelora.evaluation.predictions import Prediction, predict
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.state import load_trainable_state
from recyclelora.runs.checkpoint import tensors_digest
from recyclelora.runs.directory import (
    BACKBONE,
    CONFIG,
    RECORD,
    TrainedRecord,
    is_run,
    not_a_run,
)
from recyclelora.runs.weights import read_run_weights
from recyclelora.system.cache import of_run
from recyclelora.system.devices import resolve_accelerator, set_numerics
from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import read_record

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
        image: np.ndarray | Image.Image | str | Path,
        shown: Shown | None = None,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Prediction:
        """Segment one uint8 RGB image (H, W, 3), an image of Pillow, or an image file.

        What has an EXIF orientation is turned as that asks for; an array is taken as it is.

        Args:
            image: of any size
            shown: how it is shown to the model; by default under the run's test protocol, as :meth:`evaluator_for` says
            advance: told of windows done
        """
        if isinstance(image, str | Path):
            image = read_upright(Path(image))
        elif isinstance(image, Image.Image):
            image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} {image.shape}")
        evaluator = self.evaluator_for((image.shape[0], image.shape[1]), shown or Shown())
        found = predict(self.segmenter, evaluator, image, advance=advance)
        return dataclasses.replace(found, image=image, classes=self.classes)

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
        raise UserError(not_a_run(run_dir))
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
    set_numerics(tf32=config.trainer.tf32)
    device = torch.device(resolve_accelerator(accelerator))
    segmenter.to(device).eval().requires_grad_(False)
    evaluator = single_evaluator(config, device, about["precision"])
    return TrainedModel(run_dir, config, segmenter, evaluator, stored.step, tensors_digest(stored.trained))


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
