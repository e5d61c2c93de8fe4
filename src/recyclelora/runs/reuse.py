"""Results that another sweep, or a run of its own, has already: with ``hydra.sweeper.reuse`` they are taken over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from recyclelora.runs.directory import RESULT, is_finished
from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import read_object

OWN = shutil.ignore_patterns(".*", "mlflow*", "tensorboard*", "wandb*")
"""What a run directory holds of its own place: locks, and how far it was sent to a tracker."""


def take_over(directory: Path, output_dir: Path, signature: str) -> Path | None:
    """Copy the finished run that has the same signature, if there is one; complete or not at all.

    Args:
        directory: of the run that is wanted, ``.../trial_0007-<signature>`` or ``.../trial_0007-<signature>/seed_<s>``
        output_dir: the folder of all runs and sweeps
        signature: of the run that is wanted

    Returns:
        where it was found; None where nothing was, or where the run has already begun.
    """
    if directory.exists():
        return None
    found = next((path for path in _alike(directory, output_dir) if _is(path, signature)), None)
    if found is None:
        return None
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(found, temporary, ignore=OWN)
    temporary.rename(directory)
    return found


def _alike(directory: Path, output_dir: Path) -> Iterator[Path]:
    """Directories whose names say that they may be the same run."""
    seed = directory.name if directory.name.startswith("seed_") else None
    sign = (directory.parent if seed else directory).name.rpartition("-")[2]
    if seed:
        yield from sorted(output_dir.glob(f"sweeps/*/*-{sign}/{seed}"))
    else:
        yield from sorted(output_dir.glob(f"sweeps/*/*-{sign}"))
        yield from sorted(output_dir.glob(f"runs/*-{sign}"))


def _is(path: Path, signature: str) -> bool:
    try:
        return is_finished(path) and read_object(path / RESULT).get("signature") == signature
    except (UserError, AttributeError):
        return False
