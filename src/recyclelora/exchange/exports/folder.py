"""An export's folder: complete, or as it was before."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recyclelora.config.commands import EXPORT_FORMATS, EXPORT_GROUP
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import plugin_names
from recyclelora.system.storage import sync_folder
from recyclelora.system.typed_json import read_object

REPORT = "report.json"
"""Every export holds one, by whose ``format`` it is known."""


@contextmanager
def replaced(final: Path) -> Iterator[Path]:
    """Give a new folder that takes the place of ``final`` when the block ends; after an error ``final`` is untouched.

    Raises:
        UserError: ``final`` holds something else than an export, or cannot be written.
    """
    if final.exists() and not _is_export(final) and not (final.is_dir() and not any(final.iterdir())):
        raise UserError(f"output={final}: exists and is no export; choose another folder")
    name = f".{final.name}.{uuid.uuid4().hex}"
    temporary, old = final.with_name(f"{name}.tmp"), final.with_name(f"{name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _sync(temporary)
        if final.exists():
            final.rename(old)
        temporary.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        raise UserError(f"{final}: cannot be written: {error}") from error
    finally:
        if old.exists() and not final.exists():
            old.rename(final)
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_export(folder: Path) -> bool:
    path = folder / REPORT  # other commands write a report, too
    try:
        return path.is_file() and read_object(path).get("format") in (*EXPORT_FORMATS, *plugin_names(EXPORT_GROUP))
    except (UserError, AttributeError):
        return False


def _sync(folder: Path) -> None:
    """Bring every file to the disk, readable by others (safetensors writes files that are not)."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
