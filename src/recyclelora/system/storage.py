"""Writes that survive a kill at any moment: unique temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recyclelora.system.errors import UserError

LOCK = ".lock"
"""The file that says who holds a run directory."""


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
    """Replace ``path`` by UTF-8 ``text`` atomically; of a file name what is no UTF-8 is written as an escape."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Replace ``path`` by JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def append_text(path: Path, text: str) -> None:
    """Add UTF-8 ``text`` to the end of a file; a kill can cut it off, which readers of such files allow for.

    Raises:
        UserError: it could not be written, with the path and the bytes needed.
    """
    data = text.encode()
    try:
        with path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
    except OSError as error:
        raise UserError(f"{path}: cannot add {len(data):,} bytes: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def make_folder(folder: Path, hint: str = "") -> None:
    """Create a folder and those above it; one that is there is fine.

    Raises:
        UserError: it cannot be created; ``hint`` stands behind why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be created: {error.strerror}{hint}") from error


def private(folder: Path) -> None:
    """Make a folder that only this user can look into, as what lies there is run as code; those above stay as they are.

    Raises:
        UserError: it cannot be made.
    """
    make_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made private: {error.strerror}") from error


def is_own_file(folder: Path, path: Path) -> bool:
    """Whether a path below ``folder`` is a plain file that is reached through no link: what may be sent elsewhere."""
    steps = [folder.joinpath(*path.relative_to(folder).parts[:depth]) for depth in range(1, len(path.parts) + 1)]
    return path.is_file() and not any(step.is_symlink() for step in steps)


def folder_inside(folder: Path, name: str, instead: str = "copy the run to a place of yours") -> Path:
    """A folder that a command writes inside somebody's run, made where it is missing.

    Args:
        folder: the run's directory
        name: of the folder inside
        instead: what to do where it cannot be written

    Raises:
        UserError: it is a link, so that its files would be replaced elsewhere, or it cannot be created or written.
    """
    inside = folder / name
    if inside.is_symlink():
        raise UserError(f"{inside}: is a link, which is not followed inside a run: remove it, or {instead}")
    make_folder(inside, f"; {instead}")
    if not os.access(inside, os.W_OK | os.X_OK):
        raise UserError(f"{inside}: cannot be written; {instead}")
    return inside


def set_aside(path: Path, kind: str = "old") -> Path:
    """Rename a file or folder to ``<name>.<kind>-<time>``, with a number behind it where that is taken.

    Raises:
        UserError: it cannot be renamed.
    """
    stamped = path.with_name(f"{path.name}.{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    numbered = (stamped.with_name(f"{stamped.name}-{number}") for number in itertools.count(2))
    aside = stamped if not stamped.exists() else next(other for other in numbered if not other.exists())
    try:
        return path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: cannot be renamed: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left below temporary names; for the only one who writes in ``folder``."""
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(folder: Path, name: str = LOCK, hint: str = "") -> Iterator[None]:
    """Hold a directory; the kernel lets go of the lock when the process ends, however it ends.

    Args:
        folder: a run's directory, or a sweep's
        name: of the lock file in it
        hint: what to add to the message where another process holds it

    Raises:
        UserError: another process holds it; says which.
    """
    path = folder / name
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # a group's folder is the group's: the umask decides
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        _locks.add(lock)
        _take(lock, path, hint)
        with contextlib.suppress(OSError):  # who holds it is a courtesy to others; a full disk does not undo the lock
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        _locks.discard(lock)
        os.close(lock)


_locks: set[int] = set()
"""Descriptors of the lock files that this process has open."""


def _let_go() -> None:
    """A lock is its process's and not its forked children's, of which one may outlive it and hold the next one up.

    The descriptors stay, on nothing, so that no other file gets their numbers before the child closes them.
    """
    if _locks:
        nothing = os.open(os.devnull, os.O_RDWR)
        for lock in _locks:
            os.dup2(nothing, lock, inheritable=False)
        os.close(nothing)
        _locks.clear()


os.register_at_fork(after_in_child=_let_go)


def _take(lock: int, path: Path, hint: str) -> None:
    """Lock the open file of ``path``, and make sure that it still is the one there: a run may be renamed meanwhile.

    Raises:
        UserError: another process holds the folder, or has just moved it away.
    """
    folder = path.parent
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder}: in use by {_written_holder(path)}{hint}") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be locked: {error.strerror}") from error
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), path.stat()):
            return
    raise UserError(f"{folder}: another process has just moved it; give the command again")


def holder(folder: Path, name: str = LOCK) -> str | None:
    """Which process holds a directory; None when none does.

    Asks by trying, so not for directories that are about to be started.
    """
    try:
        with (folder / name).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_holder(folder / name)
    except OSError:
        return None
    return None


def _written_holder(lock: Path) -> str:
    """What the holder of a lock file has written into it."""
    with contextlib.suppress(OSError):
        return lock.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    return "another process"


@contextlib.contextmanager
def taking_turns(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Wait for the lock file at ``path`` and hold it; for short work that several processes may do.

    Args:
        path: of the lock file
        waiting: called again and again, twice a minute, while another process holds it
    """
    try:
        file = path.open("a")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    with file:
        _locks.add(file.fileno())
        try:
            _wait(file.fileno(), waiting)
            yield
        finally:
            _locks.discard(file.fileno())


def _wait(lock: int, waiting: Callable[[], None] | None) -> None:
    if waiting is None:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return
    said = float("-inf")
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() - said >= 30:
            said = time.monotonic()
            waiting()
        time.sleep(0.5)
