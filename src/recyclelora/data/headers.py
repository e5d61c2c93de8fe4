"""What an image file says of itself before its pixels: its size, how it is stored, and which way up it is.

Only the first bytes are read, so that tens of thousands of files are looked at in seconds.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from recyclelora.data.orientation import UPRIGHT

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
GREY, PALETTE = 0, 3
"""Colour types of a PNG whose pixels are single numbers."""

ORIENTATION = 0x0112
"""The tag of TIFF and EXIF that says how the stored pixels are to be turned, 1 to 8; 1 is upright."""

FIRST = 1 << 16
"""Bytes in which a header is looked for first; an EXIF block, a segment of a JPEG, is no longer."""

AT_ONCE = 16
"""Files opened side by side: on a shared file system each open is a wait."""

# damaged metadata turn nothing, and are no defect of an image
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)

_PILLOWS_BOUND = threading.Lock()
"""Held by who lifts it: it is one for the whole process."""


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels."""

    size: tuple[int, int]
    """(H, W) as stored, before any turn"""
    orientation: int = UPRIGHT
    """1 to 8, of EXIF"""
    bits: int | None = None
    """of one number of a PNG"""
    colour: int | None = None
    """a PNG's colour type"""

    @property
    def turned_size(self) -> tuple[int, int]:
        """(H, W) after the turn that the orientation asks for."""
        return self.size if self.orientation < 5 else self.size[::-1]


def read_header(path: Path) -> Header | None:
    """The header of an image file; None where there is none to be read, which whoever reads the pixels says."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            first = file.read(FIRST)
            if first.startswith(PNG):
                return png_header(first)
            return _pillow_header(file)
    except (OSError, SyntaxError, ValueError, struct.error):
        return None


def read_headers(paths: Sequence[Path]) -> list[Header | None]:
    """The headers of many files, in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read_header, paths))


def png_header(data: bytes) -> Header:
    """The header of a PNG.

    Raises:
        ValueError: damaged.
    """
    chunks = dict(leading_chunks(data))
    if len(chunks.get(b"IHDR", b"")) != 13:
        raise ValueError("damaged PNG: no header")
    width, height, bits, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    return Header((height, width), exif_orientation(bytes(chunks.get(b"eXIf", b""))), bits, colour)


def leading_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and body of the chunks of a PNG before its pixels, as far as they are whole; nothing is checked."""
    view, position = memoryview(data), len(PNG)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, start = data[position + 4 : position + 8], position + 8
        if kind == b"IDAT" or start + length > len(data):
            return
        yield kind, view[start : start + length]
        position = start + length + 4


def _pillow_header(file: BinaryIO) -> Header:
    with _opened(file) as picture:
        width, height = picture.size
        turn = _orientation_of(picture)
        if picture.format == "TIFF" and turn > 4:  # the one kind whose size Pillow gives as turned
            width, height = height, width
        return Header((height, width), turn)


def _opened(file: BinaryIO) -> Image.Image:
    """Pillow's view of a file of any size: its bound is for pixels, of which none are read here."""
    file.seek(0)
    try:
        return Image.open(file)
    except Image.DecompressionBombError:
        with _PILLOWS_BOUND:
            file.seek(0)
            bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = bound


def orientation(data: bytes) -> int:
    """The orientation, 1 to 8, that an image file carries; 1 where it carries none or damaged metadata."""
    try:
        with _opened(io.BytesIO(data)) as picture:
            return _orientation_of(picture)
    except (OSError, SyntaxError, ValueError, struct.error):
        return UPRIGHT


def _orientation_of(picture: Image.Image) -> int:
    """Of EXIF alone: Pillow itself would also ask XMP, which OpenCV and viewers do not."""
    if isinstance(picture, TiffImageFile):  # has the structure of an EXIF block
        return _known(picture.tag_v2.get(ORIENTATION))
    return exif_orientation(picture.info.get("exif", b""))


def exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block; 1 where it has none or is damaged."""
    exif = Image.Exif()
    try:
        exif.load(block)
        return _known(exif.get(ORIENTATION))
    except (OSError, SyntaxError, ValueError, TypeError, struct.error):
        return UPRIGHT


def _known(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT
