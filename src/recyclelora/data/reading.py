"""Reading images and masks exactly as they are stored; whatever is broken is refused with its file name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from recyclelora.data.labels import IGNORE, UNKNOWN
from recyclelora.errors import UserError

# One process reads one sample; OpenCV's own threads would only fight with the data workers.
cv2.setNumThreads(0)

ReadIds = Callable[[Path], np.ndarray]
"""Reads the stored ids (H, W) of a mask exactly as they are; other encodings than indices are in ``masks.py``."""


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB (H, W, 3).

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    image = _decode(path, cv2.IMREAD_COLOR_RGB)
    return np.ascontiguousarray(image)


def read_label(path: Path, table: np.ndarray, read_ids: ReadIds | None = None) -> np.ndarray:
    """Read a mask and map it to uint8 train ids (H, W).

    Args:
        path: the mask
        table: stored id -> train id, with an entry for every id that the encoding can store
        read_ids: how the mask is encoded; by default :func:`read_indices`

    Raises:
        UserError: unreadable, another encoding, or an id that the dataset does not define.
    """
    ids = (read_ids or read_indices)(path)
    label: np.ndarray = table[ids]
    if (label == UNKNOWN).any():
        unknown = sorted({int(value) for value in np.unique(ids[label == UNKNOWN])})
        raise UserError(f"{path}: label ids {unknown} are not defined by this dataset; is it the right kind of mask?")
    return label


def read_indices(path: Path) -> np.ndarray:
    """The stored indices (H, W) of a grey or palette PNG; colours are never looked at.

    Pillow keeps the indices of a palette image, where OpenCV would turn them into colours.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("P", "L"):
                raise UserError(f"{path}: expected an 8-bit id mask, got mode {picture.mode}")
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def fit_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut or pad a mask (h, w) with 255 at the right and bottom to ``size`` (H, W)."""
    if label.shape == size:
        return label
    fitted = np.full(size, IGNORE, np.uint8)
    height, width = min(size[0], label.shape[0]), min(size[1], label.shape[1])
    fitted[:height, :width] = label[:height, :width]
    return fitted


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".png" and data.rfind(b"IEND") < 0:  # OpenCV fills the missing rows with zeros
        raise UserError(f"{path}: truncated PNG")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise UserError(f"{path}: not a readable image")
    return image
