"""Checkpoints: safetensors and JSON in one folder a step, complete or absent, checked by sha256.

A folder is written under a temporary name and renamed when all of it is on disk; pointer files name folders and are
written after them. Frozen weights are never stored.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from recyclelora.system.errors import UserError
from recyclelora.system.storage import (
    read_json,
    remove_leftovers,
    sha256,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)

MANIFEST = "manifest.json"
STEP = re.compile(r"step_\d{6,}")


@dataclass
class Checkpoint:
    """What a run needs to go on: named sets of tensors and a JSON state."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """set name -> tensor name -> tensor; each set is one file"""
    state: dict[str, Any]

    @property
    def model(self) -> dict[str, Tensor]:
        """The trained tensors that are scored and kept: averaged ones where the run averages its weights."""
        return self.tensors.get("average", self.tensors["trained"])


def folder_name(step: int) -> str:
    """Name of a step's folder."""
    return f"step_{step:06d}"


def step_of(folder: Path) -> int:
    """The step that a folder is named by."""
    return int(folder.name.removeprefix("step_"))


def save_checkpoint(root: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint below ``root``; returns its folder.

    Raises:
        UserError: it could not be written; earlier checkpoints are untouched.
    """
    final = root / folder_name(checkpoint.step)
    temporary = root / f".{final.name}.{uuid.uuid4().hex}.tmp"
    try:
        temporary.mkdir(parents=True)
        for name, tensors in checkpoint.tensors.items():
            contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            write_bytes(temporary / f"{name}.safetensors", save(contiguous))
        write_json(temporary / "state.json", {"step": checkpoint.step, **checkpoint.state})
        files = sorted(path.name for path in temporary.iterdir())
        write_json(temporary / MANIFEST, {name: sha256(temporary / name) for name in files})
        if final.exists():  # the same step of a run that was set back: same content, or a damaged one
            _remove(final)
        temporary.rename(final)
        sync_folder(root)
    except (OSError, UserError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"checkpoint {final} was not written: {error}") from error
    return final


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes, types and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        UserError: a file is missing, truncated or altered.
    """
    manifest = _read_manifest(folder / MANIFEST)
    for name, digest in manifest.items():
        path = folder / Path(name).name
        if not path.is_file() or sha256(path) != digest:
            raise UserError(f"{path}: damaged (its sha256 is not the one in {MANIFEST})")
    sets = [Path(name).stem for name in manifest if name.endswith(".safetensors")]
    try:
        state = read_json(folder / "state.json")
        tensors = {name: load_file(folder / f"{name}.safetensors") for name in sets}
        return Checkpoint(step=int(state.pop("step")), tensors=tensors, state=state)
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:  # whole, but not of our making
        raise UserError(f"{folder}: not a checkpoint of this project: {error}") from error


def _read_manifest(path: Path) -> dict[str, str]:
    """File name -> sha256. Only the very bytes that are written here count: nothing else vouches for this file.

    Raises:
        UserError: missing or altered.
    """
    found = read_json(path)
    if not isinstance(found, dict) or path.read_text(encoding="utf-8") != json.dumps(found, indent=2) + "\n":
        raise UserError(f"{path}: damaged")
    return found


def newest_checkpoint(root: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged newer ones are reported and skipped.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    folders = _folders(root)
    for folder in reversed(folders):
        try:
            return load_checkpoint(folder)
        except UserError as error:
            warn(f"{error}; going back to the checkpoint before")
    if folders:
        raise UserError(f"{root}: no checkpoint is whole; use fresh=true to start over")
    return None


def point(root: Path, pointer: str, step: int) -> None:
    """Let ``pointer`` (last, best_source, best_target) name a step's folder."""
    write_text(root / pointer, folder_name(step) + "\n")


def pointed(root: Path, pointer: str) -> Path | None:
    """The folder that a pointer names, if it is there."""
    path = root / pointer
    if not path.is_file():
        return None
    name = path.read_text(encoding="utf-8", errors="replace").strip()
    folder = root / name
    return folder if STEP.fullmatch(name) and folder.is_dir() else None


def prune(root: Path, keep: int, pointers: tuple[str, ...]) -> None:
    """Remove all but the newest ``keep`` checkpoints and the pointed ones, and what a killed write left behind."""
    folders = _folders(root)
    kept = {pointed(root, pointer) for pointer in pointers} | set(folders[-keep:])
    for folder in folders:
        if folder not in kept:
            _remove(folder)
    remove_leftovers(root)


def _folders(root: Path) -> list[Path]:
    """All checkpoints, by step: names alone sort 1,000,000 before 999,999."""
    return sorted((f for f in root.glob("step_*") if STEP.fullmatch(f.name)), key=step_of)


def _remove(folder: Path) -> None:
    """Rename before removing, so that a kill in between leaves no half checkpoint under its name."""
    doomed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
