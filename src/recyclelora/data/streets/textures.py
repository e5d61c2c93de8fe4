"""Seamless noise tiles for the textures of `streets`, and how they are cut and coloured."""

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV's stubs widen every dtype they touch, so these names document a dtype rather than have it checked.
Floats = NDArray[Any]
Bytes = NDArray[Any]


def to_bytes(values: Floats) -> Bytes:
    """Values cut to 0..255, as uint8."""
    cut: Bytes = np.clip(values, 0, 255).astype(np.uint8)
    return cut


@cache
def fractal(kind: str, size: int = 512, octaves: int = 7, rough: float = 0.55) -> Bytes:
    """A seamless uint8 (size, size) tile of fractal value noise around 128, made once per process.

    `kind` only names the seed, so that tiles for different uses differ.
    """
    rng = np.random.default_rng([size, octaves, *kind.encode()])
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = 4 << octave
        grid = np.pad(rng.random((cells, cells), dtype=np.float32), 2, mode="wrap")
        zoom = size // cells
        wide = cv2.resize(grid, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        total += rough**octave * wide[2 * zoom : 2 * zoom + size, 2 * zoom : 2 * zoom + size]
    return to_bytes(128 + 44 * (total - total.mean()) / total.std())


def cutout(tile: Bytes, rng: np.random.Generator, height: int, width: int) -> Bytes:
    """A random (height, width) crop of a seamless square tile, repeating it where it is too small."""
    size = tile.shape[0]
    y, x = (int(rng.integers(0, max(1, size - side))) for side in (height, width))
    if max(height, width) <= size:
        return tile[y : y + height, x : x + width]
    return tile.take(np.arange(y, y + height), 0, mode="wrap").take(np.arange(x, x + width), 1, mode="wrap")


def coloured(levels: Bytes, ramp: Bytes) -> Bytes:
    """(h, w, 4) picture of levels (h, w) looked up in a ramp (256, 4), one whole pixel at a time."""
    pixels = np.ascontiguousarray(ramp).view(np.uint32)[:, 0]
    return pixels[levels].view(np.uint8).reshape(*levels.shape, 4)
