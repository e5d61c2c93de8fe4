"""Reading images and masks exactly as they are stored; whatever is broken is refused with its file name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from recyclelora.data.decoding import decode_indices, decode_rgb, read_bytes
from recyclelora.data.headers import orientation
from recyclelora.data.labels import IGNORE, UNKNOWN
from recyclelora.data.masks import read_numbers
from recyclelora.data.orientation import turned
from recyclelora.system.errors import UserError

# One process reads one sample; OpenCV's own threads would only fight with the data workers.
cv2.setNumThreads(0)

ReadIds = Callable[[Path, np.ndarray], np.ndarray]
"""Reads the stored ids (H, W) of a mask exactly as they are; other encodings than indices are in ``masks.py``.

The second argument is the table from stored ids to train ids, which tells what can be an id."""


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB (H, W, 3), on the pixel grid it is stored in.

    Raises:
        UserError: the file is missing, truncated, damaged or not an image.
    """
    try:
        return decode_rgb(read_bytes(path))
    except (ValueError, cv2.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: cannot be read: its pixels do not fit into the memory that is left") from error


def read_upright(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB (H, W, 3), turned as its EXIF orientation asks for it to be shown.

    Raises:
        UserError: the file is missing, truncated, damaged or not an image.
    """
    return turned(read_image(path), orientation(read_bytes(path)))


def read_label(path: Path, table: np.ndarray, read_ids: ReadIds | None = None) -> np.ndarray:
    """Read a mask and map it to uint8 train ids (H, W).

    Args:
        path: the mask
        table: stored id -> train id, with an entry for every id that the encoding can store
        read_ids: how the mask is encoded; by default :func:`read_indices`

    Raises:
        UserError: unreadable, another encoding, or an id that the dataset does not define.
    """
    ids = (read_ids or read_indices)(path, table)
    label = mapped(ids, table)
    if (label == UNKNOWN).any():
        unknown = sorted({int(value) for value in np.unique(ids[label == UNKNOWN])})
        raise UserError(f"{path}: label ids {unknown} are not defined by this dataset; is it the right kind of mask?")
    return label


def mapped(ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Train ids (H, W) of stored ids; OpenCV's look-up of bytes is several times faster than numpy's indexing."""
    label: np.ndarray = cv2.LUT(ids, table[:256]) if ids.dtype == np.uint8 else table[ids]
    return label


def read_indices(path: Path, table: np.ndarray | None = None) -> np.ndarray:
    """The stored indices (H, W) of a grey or palette PNG; colours are never looked at.

    Pillow keeps the indices of the kinds that :func:`decode_indices` leaves to it; OpenCV would turn them into colours.
    """
    try:
        ids = decode_indices(read_bytes(path), table, path)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if ids is not None:
        return ids
    mode, ids = read_numbers(path, table)
    if mode not in ("P", "L"):
        raise UserError(f"{path}: expected an 8-bit id mask, got mode {mode}")
    return ids


def fit_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut or pad a mask (h, w) with 255 at the right and bottom to ``size`` (H, W)."""
    if label.shape == size:
        return label
    fitted = np.full(size, IGNORE, np.uint8)
    height, width = min(size[0], label.shape[0]), min(size[1], label.shape[1])
    fitted[:height, :width] = label[:height, :width]
    return fitted
