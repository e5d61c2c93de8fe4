"""Decoded samples on disk: what a sweep reads many times is decoded once.

One file of raw bytes for each sample, named by everything its content depends on. Many processes may share the folder:
a file appears under its name only when it is whole, a damaged one is decoded again, and a small ledger under a lock
keeps all of them within the bound.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np

from recyclelora.data.datasets import Dataset, FolderDataset, Sample
from recyclelora.data.datasets.base import View
from recyclelora.data.identity import file_state, how_it_reads

HEADER = struct.Struct("<8sIIIIQ")
"""Magic, height, width, length of the name, unused, checksum of all that follows."""
MAGIC = b"decoded1"

IN_USE = 6 * 3600
"""Seconds for which a sample counts as in use. Samples of a set that is larger than the cache would otherwise push each
other out before any is read again, at the price of writing every one of them every time."""
TOUCH_AFTER = 600
"""Seconds after which a read is worth noting for the order of eviction."""
RESCAN_AFTER = 3600
"""Seconds for which the ledger is believed; a file that was being written for longer belongs to a process that died."""


@dataclass(frozen=True)
class CachedDataset(View):
    """A dataset whose samples are kept decoded; a cache changes no content."""

    base: FolderDataset
    cache: DecodeCache

    def load(self, index: int) -> Sample:
        """Read one sample from the cache, or decode and keep it."""
        key = sample_key(self.base, index)
        sample = self.cache.load(key)
        if sample is None:
            sample = self.base.load(index)
            self.cache.store(key, sample)
        return sample


def kept_decoded(dataset: Dataset, directory: Path, gigabytes: float | None) -> Dataset:
    """A dataset of files behind a cache of so many GB; any other dataset, or without a size, the dataset itself."""
    if gigabytes is None or not isinstance(dataset, FolderDataset):
        return dataset
    return CachedDataset(dataset, DecodeCache(directory, int(gigabytes * 1e9)))


def sample_key(dataset: FolderDataset, index: int) -> str:
    """Hex digest over path, size and time of change of the sample's files, and over how they are read."""
    item = dataset.items[index]
    parts = [how_it_reads(dataset)]
    for field in fields(item):
        value = getattr(item, field.name)
        if field.default is not MISSING and value == field.default:
            continue
        parts.append(file_state(value) if isinstance(value, Path) else repr(value))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:40]


class DecodeCache:
    """A folder of decoded samples of at most ``max_bytes`` in all.

    When it is full, the least recently used go, unless all are in use. A folder that cannot be written costs only the
    caching, and a warning.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self._closed_until = 0.0

    def load(self, key: str) -> Sample | None:
        """The sample, or None where there is no intact file; notes that it is in use."""
        path = self._path(key)
        try:
            data = np.fromfile(path, np.uint8)  # no memory map: a file that shrinks under one kills the process
            if time.time() - path.stat().st_mtime > TOUCH_AFTER:
                os.utime(path)
        except OSError:
            return None
        return _unpacked(data)

    def store(self, key: str, sample: Sample) -> None:
        """Keep one sample if there is room for it."""
        if time.monotonic() < self._closed_until:
            return
        parts = _packed(sample)
        size = sum(len(part) for part in parts)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not self._reserved(size):
                self._close(f"full of samples in use; raise data.decode_cache above {self.max_bytes / 1e9:g} GB")
                return
            _write_atomically(self._path(key), parts)
        except OSError as error:
            self._close(f"not written ({error.strerror})")

    def _close(self, reason: str) -> None:
        """Leave the folder alone for a while, so that a run is neither slowed nor flooded with warnings."""
        if not self._closed_until:
            warnings.warn(f"decode cache {self.directory}: {reason}", stacklevel=3)
        self._closed_until = time.monotonic() + RESCAN_AFTER

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.raw"

    # --- the bound ----------------------------------------------------------------------------------------------------

    def _reserved(self, size: int) -> bool:
        """Whether ``size`` more bytes fit; if so they are entered in the ledger, evicting others where needed."""
        with _locked(self.directory / "ledger") as ledger:
            total = ledger.read()
            if total is None or total + size > self.max_bytes:
                total = self._evict(size)
            fits = total + size <= self.max_bytes
            ledger.write(total + size if fits else total)
        return fits

    def _evict(self, size: int) -> int:
        """Delete what dead writers left, and the least recently used until there is room; returns the bytes left."""
        now, files, total = time.time(), [], 0
        for path in self.directory.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another process evicted it
                status = path.stat()
                if path.suffix == ".tmp" and now - status.st_mtime > RESCAN_AFTER:
                    path.unlink()
                    continue
                files.append((status.st_mtime, status.st_size, path))
                total += status.st_size
        # some more than needed, since listing the folder takes time
        wanted = total + size - int(0.95 * self.max_bytes) if total + size > self.max_bytes else 0
        for used, length, path in sorted(files):
            if wanted <= 0 or now - used < IN_USE:
                break
            path.unlink(missing_ok=True)
            wanted, total = wanted - length, total - length
        return total


class _Ledger:
    """The sum of all sizes, in a file that is held locked."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self) -> int | None:
        """The sum, or None where it has to be counted again."""
        text = os.pread(self.descriptor, 64, 0).split()
        if len(text) != 2 or not all(part.isdigit() for part in text):
            return None
        return int(text[0]) if 0 <= time.time() - int(text[1]) < RESCAN_AFTER else None

    def write(self, total: int) -> None:
        """Enter a new sum; the time of the last count stays."""
        text = os.pread(self.descriptor, 64, 0).split()
        counted = int(text[1]) if self.read() is not None else int(time.time())
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{total} {counted}\n".encode(), 0)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[_Ledger]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _Ledger(descriptor)
    finally:
        os.close(descriptor)


# --- one file ---------------------------------------------------------------------------------------------------------


def _packed(sample: Sample) -> list[bytes]:
    """The parts of a sample's file."""
    name = sample.name.encode()
    body = b"".join([sample.image.tobytes(), sample.label.tobytes(), name])
    height, width = sample.label.shape
    return [HEADER.pack(MAGIC, height, width, len(name), 0, _checksum(np.frombuffer(body, np.uint8))), body]


def _unpacked(data: np.ndarray) -> Sample | None:
    """The sample in a file's bytes; None where they are not whole."""
    if len(data) < HEADER.size:
        return None
    magic, height, width, letters, _, checksum = HEADER.unpack(data[: HEADER.size].tobytes())
    body, pixels = data[HEADER.size :], height * width
    if magic != MAGIC or len(body) != 4 * pixels + letters or _checksum(body) != checksum:
        return None
    image, label, name = body[: 3 * pixels], body[3 * pixels : 4 * pixels], body[4 * pixels :]
    return Sample(image.reshape(height, width, 3), label.reshape(height, width), name.tobytes().decode())


def _checksum(body: np.ndarray) -> int:
    """CRC-32 over the sums of pages of 4096 bytes and over the rest: at memory speed, unlike a CRC over everything."""
    whole = len(body) // 4096 * 4096
    sums = body[:whole].view(np.uint64).reshape(-1, 512).sum(axis=1)
    return zlib.crc32(body[whole:].tobytes(), zlib.crc32(sums.tobytes()))


def _write_atomically(path: Path, parts: list[bytes]) -> None:
    """Others see the whole file or none of it; what a power cut leaves is found by its checksum."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.parent / f"{uuid.uuid4().hex}.tmp"  # with the rights that the umask gives: caches are shared
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
