"""Files that many processes share and any run can do without: one bounded folder for each kind of thing kept.

A name says everything that its content depends on, so an entry never goes stale. It appears whole or not at all, a
damaged one is made again, and the least recently used leave first. A folder that is full or cannot be written costs
time and one warning, never the run.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from recyclelora.system.errors import UserError
from recyclelora.system.storage import taking_turns

LEDGER = "ledger"
"""The file in a cache's folder that holds the sum of all sizes and the time at which they were counted."""
UNFINISHED = (".tmp", ".part")
ABANDONED_AFTER = 3600
"""Seconds after which a file in the making belongs to a process that died, the ledger is counted again, and a folder
that could not be written is tried again."""
TOUCH_AFTER = 600
"""Seconds after which a use is worth noting for the order of eviction."""

Value = TypeVar("Value")
_closed_until: dict[Path, float] = {}
_said_damaged: set[Path] = set()


@dataclass(frozen=True)
class FileCache(Generic[Value]):
    """A folder of entries of at most ``max_bytes`` in all; a kind of entry says how it becomes bytes and back."""

    title: ClassVar[str]
    """in warnings"""
    option: ClassVar[str] = ""
    """of the configuration, that sets the bound"""
    suffix: ClassVar[str] = ""
    """of the files"""
    in_use: ClassVar[float] = 0
    """Seconds after its last use for which an entry never leaves. An entry is read as a whole, so one that leaves harms
    no reader; but entries read in turns, of which there are more than fit, would each leave just before their turn."""
    durable: ClassVar[bool] = True
    """whether an entry is on disk before it has its name; else a power cut can damage it, which `decode` notices"""

    directory: Path
    max_bytes: int

    def encode(self, value: Value) -> Sequence[bytes]:
        """The parts of its file, one after the other."""
        raise NotImplementedError

    def decode(self, data: bytearray) -> Value:
        """Back from the bytes of a file.

        Raises:
            ValueError: they are not what was written.
        """
        raise NotImplementedError

    def path(self, name: str) -> Path:
        """Where an entry lies; names may hold folders."""
        return self.directory / f"{name}{self.suffix}"

    def load(self, name: str) -> Value | None:
        """The entry, or None where there is no sound one; notes that it is in use."""
        path = self.path(name)
        try:
            with path.open("rb") as file:  # no memory map: a file that shrinks under one kills the process
                status = os.fstat(file.fileno())
                data = bytearray(status.st_size)
                file.readinto(data)
        except OSError:
            return None
        if time.time() - status.st_mtime > TOUCH_AFTER:
            with contextlib.suppress(OSError):  # a folder that may only be read
                os.utime(path)
        try:
            return self.decode(data)
        except ValueError:
            if self.directory not in _said_damaged:
                _said_damaged.add(self.directory)
                warnings.warn(f"{self.title} {path}: damaged; what is damaged is made again", stacklevel=2)
            return None

    def store(self, name: str, value: Value) -> None:
        """Keep an entry if there is room for it."""
        if self.max_bytes <= 0 or time.monotonic() < _closed_until.get(self.directory, 0):
            return
        parts = self.encode(value)
        size = sum(len(part) for part in parts)
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._has_room(size):
                self._write(path, parts)
            elif self.in_use or size > self.max_bytes:  # else files in the making have the room, and soon leave it
                raised = f"; raise {self.option} above {self.max_bytes / 1e9:g} GB" if self.option else ""
                self._close(f"full of entries in use{raised}")
        except (OSError, UserError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            self._close(f"not written ({reason}); everything else works")

    def _close(self, reason: str) -> None:
        """Leave the folder alone for a while, so that a run is neither slowed nor flooded with warnings."""
        until = time.monotonic() + ABANDONED_AFTER
        if _closed_until.setdefault(self.directory, until) is until:
            warnings.warn(f"{self.title} {self.directory}: {reason}", stacklevel=3)
        _closed_until[self.directory] = until

    def _write(self, path: Path, parts: Sequence[bytes]) -> None:
        temporary = path.parent / f"{uuid.uuid4().hex}.tmp"  # with the rights that the umask gives: caches are shared
        try:
            with temporary.open("xb") as file:
                file.writelines(parts)
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _has_room(self, size: int) -> bool:
        """Whether ``size`` more bytes fit, with others evicted where needed; if so the ledger holds them."""
        ledger = self.directory / LEDGER
        with contextlib.ExitStack() as turn:
            with contextlib.suppress(OSError):  # where a file system knows no locks the bound is kept roughly
                turn.enter_context(taking_turns(ledger))
            noted = _noted(ledger)
            if noted is None or noted[0] + size > self.max_bytes:
                noted = self._evict(size), int(time.time())
            total, counted = noted
            fits = total + size <= self.max_bytes
            ledger.write_text(f"{total + size if fits else total} {counted}\n")
        return fits

    def _evict(self, size: int) -> int:
        """Delete what dead writers left, and the least recently used until there is room; returns the bytes left."""
        now, files, total = time.time(), [], 0
        for path in self.directory.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # another process evicted it
                status = path.lstat()
                if path.is_dir() or path.name == LEDGER:
                    continue
                if path.suffix not in UNFINISHED:
                    files.append((status.st_mtime, status.st_size, path))
                elif now - status.st_mtime > ABANDONED_AFTER:
                    path.unlink()
                    continue
                total += status.st_size
        # some more than needed, since listing the folder takes time
        wanted = total + size - int(0.95 * self.max_bytes) if total + size > self.max_bytes >= size else 0
        for used, length, path in sorted(files):
            if wanted <= 0 or now - used < self.in_use:
                break
            path.unlink(missing_ok=True)
            wanted, total = wanted - length, total - length
        return total


def _noted(ledger: Path) -> tuple[int, int] | None:
    """The sum of all sizes and when they were counted; None where it is time to count again."""
    try:
        total, counted = (int(part) for part in ledger.read_text().split())
    except (OSError, ValueError):
        return None
    return (total, counted) if total >= 0 <= time.time() - counted < ABANDONED_AFTER else None
