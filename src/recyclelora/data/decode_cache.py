"""Decoded samples on disk: what a sweep reads many times is decoded once.

One file of raw bytes for each sample, named by everything its content depends on.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np

from recyclelora.data.datasets import Dataset, FolderDataset, Sample
from recyclelora.data.datasets.views import View
from recyclelora.data.identity import file_state, how_it_reads
from recyclelora.system.filecache import FileCache

HEADER = struct.Struct("<8sIIIIQ")
"""Magic, height, width, length of the name, unused, checksum of all that follows."""
MAGIC = b"decoded1"


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
    """Name in the cache: a digest over path, size and time of change of the sample's files, and how they are read."""
    item = dataset.items[index]
    parts = [how_it_reads(dataset)]
    for field in fields(item):
        value = getattr(item, field.name)
        if field.default is not MISSING and value == field.default:
            continue
        parts.append(file_state(value) if isinstance(value, Path) else repr(value))
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:40]
    return f"{digest[:2]}/{digest}"


@dataclass(frozen=True)
class DecodeCache(FileCache[Sample]):
    """Image, mask and name of samples."""

    title = "decode cache"
    option = "data.decode_cache"
    suffix = ".raw"
    in_use = 6 * 3600  # an epoch reads the samples in turns
    durable = False

    def encode(self, value: Sample) -> Sequence[bytes]:
        """A header, image, mask and name."""
        name = value.name.encode()
        body = b"".join([value.image.tobytes(), value.label.tobytes(), name])
        height, width = value.label.shape
        return [HEADER.pack(MAGIC, height, width, len(name), 0, _checksum(np.frombuffer(body, np.uint8))), body]

    def decode(self, data: bytearray) -> Sample:
        """The sample, if header and checksum fit."""
        if len(data) < HEADER.size:
            raise ValueError("cut off")
        magic, height, width, letters, _, checksum = HEADER.unpack_from(data)
        body, pixels = np.frombuffer(data, np.uint8, offset=HEADER.size), height * width
        if magic != MAGIC or len(body) != 4 * pixels + letters or _checksum(body) != checksum:
            raise ValueError("not what was stored")
        image, label, name = body[: 3 * pixels], body[3 * pixels : 4 * pixels], body[4 * pixels :]
        return Sample(image.reshape(height, width, 3), label.reshape(height, width), name.tobytes().decode())


def _checksum(body: np.ndarray) -> int:
    """CRC-32 over the sums of pages of 4096 bytes and over the rest: at memory speed, unlike a CRC over everything."""
    whole = len(body) // 4096 * 4096
    sums = body[:whole].view(np.uint64).reshape(-1, 512).sum(axis=1)
    return zlib.crc32(body[whole:].tobytes(), zlib.crc32(sums.tobytes()))
