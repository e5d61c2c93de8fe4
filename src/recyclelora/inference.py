"""A finished run as a model: ``load(run).predict(image)``."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from recyclelora.build import build_model, locate_weights
from recyclelora.build_data import build_protocol, class_colours
from recyclelora.cache import of_run
from recyclelora.config import load_config
from recyclelora.data.labels import IGNORE
from recyclelora.data.reading import read_upright
from recyclelora.engine.checkpoint import load_checkpoint, pointed
from recyclelora.engine.evaluation import Evaluator
from recyclelora.engine.runtime import resolve_accelerator
from recyclelora.engine.trainables import load_trainable_state
from recyclelora.errors import UserError
from recyclelora.figures import ClassColours
from recyclelora.predictions import Prediction, predict
from recyclelora.provenance import TrainedRecord
from recyclelora.records import read_record
from recyclelora.schemas import Config
from recyclelora.segmenter import Segmenter
from recyclelora.storage import read_json, write_bytes, write_json

ADAPTER_FILE = "adapter.safetensors"
ABOUT_FILE = "adapter_config.json"
BACKBONE_FILE = "backbone.safetensors"
"""The frozen weights of an imported run whose checkpoint brought its own."""
TRAINED, INITIAL = "trained/", "initial/"


@dataclass(frozen=True)
class TrainedModel:
    """A run's segmenter with its classes and test protocol."""

    run_dir: Path
    config: Config
    segmenter: Segmenter
    evaluator: Evaluator
    step: int

    @property
    def classes(self) -> ClassColours:
        """Names and colours by train id."""
        return class_colours(self.config.data)

    def predict(self, image: np.ndarray | str | Path) -> Prediction:
        """Segment one uint8 RGB image (H, W, 3), or an image file, under the run's test protocol.

        A file is turned as its EXIF orientation asks for; an array is taken as it is.
        """
        if isinstance(image, str | Path):
            image = read_upright(Path(image))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected a uint8 RGB image (H, W, 3), got {image.dtype} {image.shape}")
        return predict(self.segmenter, self.evaluator, image)


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
    if checkpoint == "last" and (run_dir / ADAPTER_FILE).is_file():
        try:
            tensors = load_file(run_dir / ADAPTER_FILE)
            step = int(read_json(run_dir / ABOUT_FILE)["step"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{run_dir / ADAPTER_FILE}: damaged, or not written by a run: {error}") from error
        _refuse_misread(run_dir, tensors)
        return Weights(_part(tensors, TRAINED), _part(tensors, INITIAL), step)
    folder = pointed(run_dir / "checkpoints", checkpoint)
    if folder is None:
        raise UserError(f"{run_dir}: no checkpoint {checkpoint!r}; is it the directory of a run that has trained?")
    stored = load_checkpoint(folder)
    return Weights(stored.model, stored.tensors.get("initial", {}), stored.step)


def _refuse_misread(run_dir: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse what version 0.1 made of Rein's checkpoints: it took the columns of one weight for those of another order.

    Imports say since then which kind of checkpoint they come from.
    """
    if TRAINED + "backbone.model.rein.merge_queries.weight" not in tensors or not (run_dir / "run.json").is_file():
        return
    about = read_json(run_dir / "run.json")
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
    write_bytes(run_dir / ADAPTER_FILE, save({name: value.contiguous() for name, value in tensors.items()}))
    about = {
        "step": weights.step,
        "signature": signature,
        "weights_sha256": weights_sha256,
        "adapter": dataclasses.asdict(config.adapter),
        "backbone": dataclasses.asdict(config.backbone),
        "decoder": dataclasses.asdict(config.decoder),
        "classes": config.data.classes.names,
    }
    write_json(run_dir / ABOUT_FILE, about)


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
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir}: not a run directory (it has no config.yaml)")
    config = load_config(run_dir / "config.yaml")
    config.cache = str(of_run(config.cache))
    if (run_dir / BACKBONE_FILE).is_file():  # wherever the directory was moved
        config.backbone.checkpoint = str(run_dir / BACKBONE_FILE)
    stored = read_run_weights(run_dir, checkpoint)
    weights = locate_weights(config.backbone)
    about = read_record(run_dir / "run.json", TrainedRecord)
    expected = about["weights_sha256"]
    if weights is not None and weights.sha256 != expected:
        raise UserError(
            f"{run_dir}: trained on weights with sha256 {expected}, but {weights.path} has {weights.sha256}"
        )
    segmenter = build_model(config, weights, initial=stored.initial).segmenter
    load_trainable_state(segmenter, stored.trained)
    device = torch.device(resolve_accelerator(accelerator))
    segmenter.to(device).eval().requires_grad_(False)
    return TrainedModel(run_dir, config, segmenter, single_evaluator(config, device, about["precision"]), stored.step)


AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def single_evaluator(config: Config, device: torch.device, precision: str, num_workers: int = 0) -> Evaluator:
    """An evaluator for one process in a resolved precision, ``32-true``, ``bf16-mixed`` or ``16-mixed``."""

    def autocast() -> AbstractContextManager[object]:
        return torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST)

    return Evaluator(
        build_protocol(config.data.protocol), len(config.data.classes.names), IGNORE,
        device, autocast, lambda tensor: tensor, config.trainer.eval_batch_size, num_workers,
        window_batch=config.trainer.eval_window_batch,
    )  # fmt: skip
