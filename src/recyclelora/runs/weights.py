"""The tensors that a run adds to its pretrained backbone: ``adapter.safetensors``, or those of a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from recyclelora.config.run import Config
from recyclelora.runs.checkpoint import load_checkpoint, pointed
from recyclelora.runs.directory import ADAPTER, ADAPTER_CONFIG, CHECKPOINTS, RECORD
from recyclelora.system.errors import UserError
from recyclelora.system.storage import write_bytes, write_json
from recyclelora.system.typed_json import read_object

TRAINED, INITIAL = "trained/", "initial/"


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
            step = int(read_object(run_dir / ADAPTER_CONFIG)["step"])
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
    about = read_object(run_dir / RECORD)
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
