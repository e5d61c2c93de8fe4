"""Factors on disk: one file of tensors for each weight and number of columns of Q, with a checksum of its contents.

What a calibration pass has summed for a layer lies there, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from recyclelora.adapters.linalg.blas import Array
from recyclelora.system.filecache import FileCache

_FIRST = ("q", "pivots", "rank")  # of a pivoted QR; their order belongs to the checksum


@dataclass(frozen=True)
class FactorCache(FileCache[dict[str, Array]]):
    """The tensors of many weights, each by a hash of everything they depend on."""

    title = "factor cache"
    option = "factor_cache_gib"
    suffix = ".safetensors"

    directory: Path
    max_bytes: int = 4 * 2**30

    def encode(self, value: dict[str, Array]) -> Sequence[bytes]:
        """As safetensors, with a checksum among them."""
        whole = {name: np.ascontiguousarray(array) for name, array in value.items()}  # safetensors assumes C order
        whole["digest"] = np.frombuffer(_digest(value), dtype=np.uint8)
        return [safetensors.numpy.save(whole)]

    def decode(self, data: bytearray) -> dict[str, Array]:
        """The tensors, if the checksum is theirs."""
        try:
            tensors = safetensors.numpy.load(bytes(data))
            digest = tensors.pop("digest").tobytes()
            if _digest(tensors) == digest:
                return tensors
        except (KeyError, safetensors.SafetensorError) as error:
            raise ValueError("not what was stored") from error
        raise ValueError("changed bytes")


def _digest(tensors: dict[str, Array]) -> bytes:
    """Checksum of the contents: safetensors itself notices truncation but not changed bytes."""
    digest = hashlib.sha256()
    for name in (*(name for name in _FIRST if name in tensors), *sorted(tensors.keys() - {*_FIRST})):
        digest.update(byte_view(tensors[name]))
    return digest.digest()


def byte_view(array: Array) -> memoryview:
    """The array's bytes, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
