"""A folder of factors that many processes share: one file per weight, whole or not there, bounded in size.

Files appear atomically, so a reader sees a whole file or none; one that is evicted while it is read stays readable
until it is closed. Every file carries a checksum of its contents.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from recyclelora.adapters.linalg.blas import Array

_ABANDONED = 3600  # seconds after which a temporary file belongs to a process that died
_FIRST = ("q", "pivots", "rank")  # in every file; their order belongs to the checksum


class DamagedEntry(Exception):
    """A file of the cache does not hold what was written into it."""


@dataclass(frozen=True)
class FactorCache:
    """A folder of factors, bounded in size; the least recently used files leave first.

    Attributes:
        directory: where the files lie (created when needed); None switches the cache off.
        max_bytes: upper bound on the size of all files together.
    """

    directory: Path | None
    max_bytes: int = 4 * 2**30

    def load(self, key: str, columns: int) -> dict[str, Array] | None:
        """The stored tensors, or None where there are none or the folder cannot be read; marks the file as used.

        Raises:
            DamagedEntry: the file is truncated or altered; storing replaces it.
        """
        if self.directory is None:
            return None
        path = self._path(key, columns)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            tensors = safetensors.numpy.load(content)
            if _digest(tensors) != tensors.pop("digest").tobytes():
                raise DamagedEntry(path)
        except (KeyError, ValueError, safetensors.SafetensorError) as error:
            raise DamagedEntry(path) from error
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(path)
        return tensors

    def store(self, key: str, tensors: dict[str, Array]) -> None:
        """Write one file atomically, then keep the folder within its bound.

        Raises:
            OSError: the folder or the file cannot be written; nothing is left behind.
        """
        if self.directory is None:
            return
        whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}  # safetensors assumes C order
        whole["digest"] = np.frombuffer(_digest(tensors), dtype=np.uint8)
        self.directory.mkdir(parents=True, exist_ok=True)
        _write_atomically(self._path(key, len(tensors["q"])), safetensors.numpy.save(whole))
        with _sole_evictor(self.directory) as sole:
            if sole:
                self._evict()

    def _path(self, key: str, columns: int) -> Path:
        assert self.directory is not None
        return self.directory / f"{key}-{columns}.safetensors"

    def _evict(self) -> None:
        """Delete abandoned temporary files, then the least recently used factors until the bound holds."""
        assert self.directory is not None
        files = []
        for path in self.directory.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process cleared it
            if path.suffix == ".tmp" and status.st_mtime < time.time() - _ABANDONED:
                path.unlink(missing_ok=True)
            elif path.suffix == ".safetensors":
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


@contextlib.contextmanager
def _sole_evictor(directory: Path) -> Iterator[bool]:
    """Whether no other process is evicting here: two at once would both delete, and delete too much."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    except OSError:  # some network file systems do not lock folders
        yield True
    else:
        yield True
    finally:
        os.close(descriptor)


def _digest(tensors: dict[str, Array]) -> bytes:
    """Checksum of the contents: safetensors itself notices truncation but not changed bytes."""
    digest = hashlib.sha256()
    for name in (*_FIRST, *sorted(tensors.keys() - {*_FIRST, "digest"})):
        digest.update(byte_view(tensors[name]))
    return digest.digest()


def byte_view(array: Array) -> memoryview:
    """The array's bytes, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_atomically(path: Path, content: bytes) -> None:
    """Other processes see the whole file or none of it, even after a power cut."""
    temporary = path.parent / f"{uuid.uuid4().hex}.tmp"  # with the rights that the umask gives: caches are shared
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
