"""Writes that survive a kill at any moment: unique temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recyclelora.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically; the old content stays until the new one is on disk.

    Raises:
        UserError: nothing could be written, with the path and the bytes needed.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot write {len(data):,} bytes: {error.strerror}") from error


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by UTF-8 ``text`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Replace ``path`` by JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run directory; the kernel lets go of the lock when the process ends, however it ends.

    Raises:
        UserError: another process holds it; says which.
    """
    try:
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"{folder}: in use by {file.read().strip() or 'another process'}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds a run directory; asks by trying, so not for directories that are about to be started."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """Wait for the lock file at ``path`` and hold it; for short work that several processes may do."""
    try:
        file = path.open("a")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
