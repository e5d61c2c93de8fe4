"""Image file -> bytes -> pixels, by the fastest decoder that gives exactly what the file holds.

PNG goes through libspng and JPEG through libjpeg-turbo; OpenCV reads the rarer kinds (16 bits, interlaced, BMP, TIFF,
WebP). Pixels stay as they are stored; what an EXIF orientation is to do with them, ``orientation.py`` decides. What is
damaged is refused, never filled in.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyspng
import simplejpeg

from recyclelora.data.headers import GREY, JPEG, PALETTE, PNG, orientation
from recyclelora.data.jpeg import tidied, without_stray_end
from recyclelora.data.optimised import by_meaning
from recyclelora.data.orientation import INVERSE, turned
from recyclelora.system.errors import UserError


def read_bytes(path: Path) -> bytes:
    """A file's content.

    Raises:
        UserError: it is not there, empty or not readable.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
            raise UserError(f"{path}: cannot be read: not a regular file")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise UserError(f"{path}: cannot be read: larger than the memory that is left") from error
    if not data:
        raise UserError(f"{path}: cannot be read: the file is empty")
    return data


def decode_rgb(data: bytes) -> np.ndarray:
    """Decode an image file's bytes to contiguous uint8 RGB (H, W, 3); 16 bits keep their upper 8, alpha is dropped.

    Raises:
        ValueError: not an image, truncated or damaged.
    """
    if data.startswith(JPEG):
        return _jpeg(data)
    if data.startswith(PNG):
        chunks = list(png_chunks(data))
        *_, bits, _, interlaced = _header(chunks)
        if bits == 8 and not interlaced:
            return _spng(data, "RGB")
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise ValueError("not a readable image")
    if data[:4] in (b"II*\0", b"MM\0*"):  # OpenCV turns a TIFF whatever it is asked for
        image = turned(image, INVERSE[orientation(data)])
    return np.ascontiguousarray(image)


def decode_indices(data: bytes, table: np.ndarray | None = None, path: Path = Path()) -> np.ndarray | None:
    """The stored numbers (H, W), uint8, of an 8-bit grey or palette PNG; None for every other kind of file.

    No decoder hands out palette indices directly, so a palette PNG is relabelled as a grey one, which is stored alike.
    With the dataset's ``table`` a palette that an optimiser has made is seen through, see ``optimised.py``.

    Raises:
        ValueError: a truncated or damaged PNG.
    """
    if not data.startswith(PNG):
        return None
    chunks = list(png_chunks(data))
    width, height, bits, colour, interlaced = _header(chunks)
    if bits != 8 or interlaced or colour not in (GREY, PALETTE):
        return None
    header = struct.pack(">IIBBBBB", width, height, bits, GREY, 0, 0, interlaced)
    kept = [(b"IHDR", memoryview(header)), *((kind, body) for kind, body in chunks if kind in (b"IDAT", b"IEND"))]
    ids = _spng(b"".join([PNG, *(part for chunk in kept for part in _packed(*chunk))]), "L")
    return by_meaning(ids, bytes(dict(chunks).get(b"PLTE", b"")), table, path) if colour == PALETTE else ids


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and body of every chunk up to IEND.

    libspng does not look at checksums (a flipped bit gave other pixels in 225 of 300 trials), so they are checked here.

    Raises:
        ValueError: the file ends before IEND, or a checksum is wrong.
    """
    view, position, kind = memoryview(data), len(PNG), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("truncated PNG")
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = bytes(view[position + 4 : position + 8]), position + 12 + length
        if end > len(data):
            raise ValueError("truncated PNG")
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ValueError(f"damaged PNG: wrong checksum of {kind.decode('latin-1')}")
        yield kind, view[position + 8 : end - 4]
        position = end


def _header(chunks: list[tuple[bytes, memoryview]]) -> tuple[int, int, int, int, int]:
    """Width, height, bits, colour type and interlacing."""
    kind, body = chunks[0]
    if kind != b"IHDR" or len(body) != 13:
        raise ValueError("damaged PNG: no header")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
    return width, height, bits, colour, interlaced


def _packed(kind: bytes, body: memoryview) -> tuple[bytes, bytes, memoryview, bytes]:
    """One chunk as it stands in a file."""
    return struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _jpeg(data: bytes) -> np.ndarray:
    """Strictly: whatever libjpeg would patch up is an error, except where no pixel depends on it."""
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data)
        return pixels
    except ValueError:
        data = tidied(data)
    try:
        pixels = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        shorter = without_stray_end(data, str(error))
        if shorter is None:
            raise
        pixels = simplejpeg.decode_jpeg(shorter)
    return pixels


def oddity(data: bytes) -> str | None:
    """What libjpeg complains of in a JPEG that is read all the same; None where there is nothing."""
    if not data.startswith(JPEG):
        return None
    try:
        simplejpeg.decode_jpeg(data)
    except ValueError as error:
        return str(error)
    return None


def _spng(data: bytes, layout: str) -> np.ndarray:
    try:
        pixels: np.ndarray = pyspng.load(data, layout)
    except RuntimeError as error:
        raise ValueError(f"damaged PNG: {error}") from error
    return pixels
