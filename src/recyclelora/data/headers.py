"""What an image file says of itself before its pixels: its size, how it is stored, and which way up it is.

Only the first bytes are read, so that tens of thousands of files are looked at in seconds.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
GREY, PALETTE = 0, 3
"""Colour types of a PNG whose pixels are single numbers."""

ORIENTATION = 0x0112
"""The tag of TIFF and EXIF that says how the stored pixels are to be turned, 1 to 8; 1 is upright."""

FIRST = 1 << 16
"""Bytes in which a header is looked for first; an EXIF block, a segment of a JPEG, is no longer."""

AT_ONCE = 16
"""Files opened side by side: on a shared file system each open is a wait."""

_PILLOWS_BOUND = threading.Lock()
"""Held by who lifts it: it is one for the whole process."""


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels."""

    size: tuple[int, int]
    """(H, W) as stored, before any turn"""
    orientation: int = 1
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
            return _pillow_header(file, first)
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


def _pillow_header(file: BinaryIO, first: bytes) -> Header:
    picture = _opened(file)
    width, height = picture.size
    if picture.format in ("TIFF", "WEBP"):  # theirs may stand behind the pixels
        file.seek(0)
        first = file.read()
    turn = orientation(first)
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
    if data.startswith(JPEG):
        return exif_orientation(_jpeg_exif(data))
    if data.startswith(PNG):
        return exif_orientation(bytes(dict(leading_chunks(data)).get(b"eXIf", b"")))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return exif_orientation(_webp_exif(data))
    return exif_orientation(data)  # a TIFF file has the structure of an EXIF block


def exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block, which is a small TIFF file: its first directory has the tag."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 10:
        return 1
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    if at + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(f"{order}H", block, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
        if tag == ORIENTATION:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1


def _jpeg_exif(data: bytes) -> bytes:
    """The EXIF block among the segments before the first scan."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF):  # fill and stray bytes
            position += 1
            continue
        marker, (length,) = data[position + 1], struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            return body
        if marker in (0xDA, 0xD9):
            break
        position += 2 + length
    return b""


def _webp_exif(data: bytes) -> bytes:
    position = 12
    while position + 8 <= len(data):
        kind, (length,) = data[position : position + 4], struct.unpack_from("<I", data, position + 4)
        if kind == b"EXIF":
            return data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return b""
