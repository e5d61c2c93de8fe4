"""Masks in other encodings than 8-bit indices, read to stored ids exactly as they are: 16 bits are never cut to 8."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from recyclelora.data.decoding import decode_indices, read_bytes
from recyclelora.data.labels import IGNORE, UNKNOWN
from recyclelora.data.optimised import by_meaning, unspread
from recyclelora.system.errors import UserError

NO_IMAGE = "not a readable image"
UNREADABLE = (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError)
"""What Pillow and OpenCV raise on a file that they cannot decode."""


def unreadable(path: Path, error: Exception) -> UserError:
    """What to say of such a file; Pillow's own word for one that is no image names an object in memory."""
    return UserError(f"{path}: cannot be read: {NO_IMAGE if isinstance(error, UnidentifiedImageError) else error}")


def refuse_lossy(picture: Image.Image, path: Path) -> None:
    """Refuse a JPEG as a mask, whatever it is named.

    Raises:
        UserError: it is one.
    """
    if picture.format in ("JPEG", "MPO"):
        raise UserError(f"{path}: is a JPEG, which blurs ids at every edge: masks must be lossless, such as PNG")


def read_red16(path: Path, table: np.ndarray | None = None) -> np.ndarray:
    """The ids (H, W), uint16, in the red channel of a 16-bit RGB PNG, as SYNTHIA stores them.

    Pillow reads such a file as 8-bit RGB, where every id is 0. OpenCV keeps the 16 bits and orders channels B, G, R.

    Raises:
        UserError: unreadable, truncated, or not a 16-bit colour PNG.
    """
    data = read_bytes(path)
    try:
        mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if mask is None or data.rfind(b"IEND") < 0:  # OpenCV fills the missing rows with zeros
        raise UserError(f"{path}: {NO_IMAGE if mask is None else 'truncated PNG'}")
    if mask.dtype != np.uint16 or mask.ndim != 3:
        raise UserError(f"{path}: expected a 16-bit RGB mask, got {mask.dtype} of shape {mask.shape}")
    return np.ascontiguousarray(mask[..., 2])


def read_ids16(path: Path, table: np.ndarray | None = None) -> np.ndarray:
    """The stored ids (H, W), uint8 or uint16, of a bilevel, grey, palette or 16-bit grey mask.

    ``table`` tells which ids there are where the file alone does not: see :mod:`recyclelora.data.optimised`.

    Raises:
        UserError: unreadable, a colour image, or ids that do not fit 16 bits.
    """
    mode, ids = read_numbers(path, table)
    if mode in ("P", "L", "1"):
        return ids.astype(np.uint8, copy=False)
    if not mode.startswith("I"):
        raise UserError(f"{path}: expected ids, got mode {mode}; for masks in colours set data.folder.coding.kind")
    if ids.min() < 0 or ids.max() >= 1 << 16:
        raise UserError(f"{path}: ids from {ids.min()} to {ids.max()} do not fit 16 bits")
    return ids.astype(np.uint16, copy=False)


def read_numbers(path: Path, table: np.ndarray | None = None) -> tuple[str, np.ndarray]:
    """Pillow's mode of a mask, and its numbers (H, W) where these are ids.

    Raises:
        UserError: unreadable, or a JPEG.
    """
    data = read_bytes(path)
    try:
        return _numbers(data, table, path)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _numbers(data: bytes, table: np.ndarray | None, path: Path) -> tuple[str, np.ndarray]:
    try:
        picture = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:  # more pixels than Pillow likes to decode; an image of that size is read, too
        ids = decode_indices(data, table, path)
        if ids is None:
            raise
        return "L", ids
    with picture:
        refuse_lossy(picture, path)
        ids = unspread(np.asarray(picture), data)
        if picture.mode == "P":
            ids = by_meaning(ids, bytes(picture.getpalette("RGB") or b""), table, path)
        return picture.mode, ids


@dataclass(frozen=True)
class ColourIds:
    """Reads masks that are painted in colours; instances are a ``ReadIds`` whose ids are train ids."""

    train_ids: tuple[tuple[tuple[int, int, int], int], ...]
    """((red, green, blue), train id or 255)"""
    ignore_others: bool = False
    """colours that are not named are unlabelled pixels rather than a defect"""

    def __call__(self, path: Path, table: np.ndarray | None = None) -> np.ndarray:
        """Train ids (H, W), uint8; colours need no ``table``.

        Raises:
            UserError: unreadable, a mask of 16 bits or without colours, or a colour that is not named.
        """
        data = read_bytes(path)
        try:
            with Image.open(io.BytesIO(data)) as picture:
                refuse_lossy(picture, path)
                if picture.mode not in ("RGB", "RGBA", "P") or _is_16_bit(picture):
                    raise UserError(f"{path}: expected a mask in 8-bit colours, got mode {picture.mode} or 16 bits")
                rgb = np.asarray(picture.convert("RGB")).astype(np.uint32)
        except UNREADABLE as error:
            raise unreadable(path, error) from error
        packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
        ids: np.ndarray = _colour_table(self)[packed]
        if (ids == UNKNOWN).any():
            strange = [f"#{value:06x}" for value in np.unique(packed[ids == UNKNOWN])[:4]]
            raise UserError(f"{path}: colours that are no class, such as {', '.join(strange)}")
        return ids


def _is_16_bit(picture: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit colours to 8 bits while it decodes: its raw mode then is RGB;16B."""
    return any("16" in str(tile[3]) for tile in getattr(picture, "tile", []))


@lru_cache(maxsize=4)
def _colour_table(colours: ColourIds) -> np.ndarray:
    """Train id of each of the 2^24 colours; few of them occur in a mask, so that the look-up stays in the cache."""
    table = np.full(1 << 24, IGNORE if colours.ignore_others else UNKNOWN, np.uint8)
    for (red, green, blue), train in colours.train_ids:
        table[red << 16 | green << 8 | blue] = train
    return table
