"""JPEGs that break the letter of the standard in ways that do not touch a pixel, put right before a strict decoder.

libjpeg warns of them as it warns of damage, and a strict decoder refuses both. So the header is written anew, and the
decoder stays strict about everything that pixels are made of.
"""

from __future__ import annotations

import re
import struct

SOI, EOI, SOS, APP0 = 0xD8, 0xD9, 0xDA, 0xE0
SEQUENTIAL = (0xC0, 0xC1)
"""Frames that are stored in one pass, in which the spectral parameters of a scan have only one meaning."""
RESTARTS = range(0xD0, 0xD8)

STRAY = 8
"""Bytes that some cameras leave behind the pixels; padding with zeros may be of any length.

Damaged pixels mostly leave more: of 2,500 photographs with one flipped bit libjpeg noticed 518, of which 47 left 2 to 8
bytes. So ``inspect_data.py`` names every file with stray bytes."""


def tidied(data: bytes) -> bytes:
    """The same JPEG without stray bytes between its segments, with a known JFIF revision and legal scan parameters.

    Samsung's phones write the parameters of a scan as 0, 0, 0. The data of scans stay as they are, and so does a file
    whose segments do not lead to an end of the image.
    """
    parts, position, sequential = [data[:2]], 2, True
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 2 > len(data):
            return data
        marker = data[position + 1]
        if marker in (0x00, 0xFF):  # no marker, and fill
            position += 1
            continue
        if marker == EOI:
            return b"".join([*parts, data[position : position + 2]])
        if position + 4 > len(data):
            return data
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = bytearray(data[position : position + 2 + length])
        position += 2 + length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sequential = marker in SEQUENTIAL
        if marker == APP0 and segment[4:9] == b"JFIF\0":
            segment[9:11] = b"\1\1"
        if marker == SOS and sequential:
            segment[-3:] = b"\0\x3f\0"
        parts.append(bytes(segment))
        if marker == SOS:
            end = _scan_end(data, position)
            parts.append(data[position:end])
            position = end


def without_stray_end(data: bytes, complaint: str) -> bytes | None:
    """The tidied JPEG without the bytes between its pixels and its end that libjpeg complains of.

    None where the complaint is another one, or where the bytes look like what damaged pixels leave.
    """
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", complaint)
    if found is None or not data.endswith(b"\xff\xd9"):
        return None
    kept = len(data) - 2 - int(found[1])
    return data[:kept] + b"\xff\xd9" if int(found[1]) <= STRAY or not any(data[kept:-2]) else None


def _scan_end(data: bytes, position: int) -> int:
    """Where the data of a scan end: at the first marker that is neither a stuffed byte nor a restart."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        if data[position + 1] != 0x00 and data[position + 1] not in RESTARTS:
            return position
        position += 2
