from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from recyclelora.data.decoding import decode_indices, decode_rgb, png_chunks
from recyclelora.data.reading import read_image, read_label
from recyclelora.system.errors import UserError

RNG = np.random.default_rng(0)
PICTURE = cv2.resize(RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8), (45, 30), interpolation=cv2.INTER_CUBIC)
IDS = np.kron(RNG.integers(0, 35, (6, 9)), np.ones((5, 5), int)).astype(np.uint8)


def stored(picture: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    """An orientation that asks for a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def rgb_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_png_gives_the_colours_pillow_gives(mode: str):
    data = stored(Image.fromarray(PICTURE).convert(mode), "PNG")
    decoded = decode_rgb(data)
    assert decoded.shape == (30, 45, 3) and decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, rgb_of(data))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}])
def test_jpeg_gives_the_colours_pillow_gives(options: dict):
    data = stored(Image.fromarray(PICTURE), "JPEG", **options)
    np.testing.assert_array_equal(decode_rgb(data), rgb_of(data))


def test_grey_and_cmyk_jpegs_become_rgb():
    grey = stored(Image.fromarray(PICTURE).convert("L"), "JPEG")
    np.testing.assert_array_equal(decode_rgb(grey), rgb_of(grey))
    cmyk = stored(Image.fromarray(PICTURE).convert("CMYK"), "JPEG")
    assert np.abs(decode_rgb(cmyk).astype(int) - rgb_of(cmyk)).max() <= 1


def test_16_bit_images_keep_their_upper_bits():
    deep = RNG.integers(0, 1 << 16, (8, 9, 3)).astype(np.uint16)
    data = cv2.imencode(".png", deep[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_rgb(data), deep >> 8)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM"])
def test_other_kinds_are_read(kind: str):
    np.testing.assert_array_equal(decode_rgb(stored(Image.fromarray(PICTURE), kind)), PICTURE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_decoding_turns_nothing(kind: str):
    """Whether an image is turned depends on its mask; numbers are as they are stored."""
    plain, oriented = (stored(Image.fromarray(PICTURE), kind, **o) for o in ({}, {"exif": turned()}))
    assert decode_rgb(oriented).shape == PICTURE.shape
    np.testing.assert_array_equal(decode_rgb(oriented), decode_rgb(plain))


def test_an_orientation_turns_no_mask():
    data = stored(Image.fromarray(IDS), "PNG", exif=turned())
    np.testing.assert_array_equal(decode_indices(data), IDS)


def test_palette_and_grey_masks_give_their_numbers():
    palette = Image.fromarray(IDS, mode="P")
    palette.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    for picture, options in ((Image.fromarray(IDS), {}), (palette, {}), (palette, {"transparency": 3})):
        np.testing.assert_array_equal(decode_indices(stored(picture, "PNG", bits=8, **options)), IDS)


def test_kinds_without_8_bit_numbers_are_left_to_others():
    two_bits = Image.fromarray(IDS % 4, mode="P")
    two_bits.putpalette([0, 0, 0, 9, 9, 9, 50, 50, 50, 90, 90, 90])
    others = [two_bits, Image.fromarray(PICTURE), Image.fromarray(IDS.astype(np.uint16))]
    assert [decode_indices(stored(picture, "PNG")) for picture in others] == [None] * 3
    assert decode_indices(stored(Image.fromarray(IDS), "BMP")) is None


def test_a_two_bit_palette_mask_is_read_all_the_same(tmp_path: Path):
    mask = Image.fromarray(IDS % 4, mode="P")
    mask.putpalette([0, 0, 0, 9, 9, 9, 50, 50, 50, 90, 0, 90])
    mask.save(tmp_path / "m.png", bits=2)
    np.testing.assert_array_equal(read_label(tmp_path / "m.png", np.arange(256, dtype=np.uint8)), IDS % 4)


def odd_jpegs() -> dict[str, bytes]:
    """Files that break the letter of the standard, as cameras and programs write them."""
    data = stored(Image.fromarray(PICTURE), "JPEG", quality=90)
    tables, scan, revision = data.index(b"\xff\xdb"), data.index(b"\xff\xda"), data.index(b"JFIF") + 5
    spectral = scan + 5 + 2 * data[scan + 4]
    samsung = data[:spectral] + b"\0\0\0" + data[spectral + 3 :]
    return {
        "plain": data,
        "bytes before a table": data[:tables] + b"\0\1\2" + data[tables:],
        "bytes before the scan": data[:scan] + b"stray" + data[scan:],
        "scan parameters 0 0 0": samsung,
        "JFIF 2.01": data[:revision] + b"\2\1" + data[revision + 2 :],
        "JFIF 0.00": data[:revision] + b"\0\0" + data[revision + 2 :],
        "bytes before the end": data[:-2] + b"\x10\x20\x30\x40" + data[-2:],
        "padding before the end": data[:-2] + bytes(300) + data[-2:],
        "all of it, and a trailer": samsung[:tables] + b"\0" + samsung[tables:-2] + bytes(9) + b"\xff\xd9SEFT\xff\xd9",
    }


@pytest.mark.parametrize("kind", odd_jpegs())
def test_harmless_oddities_of_a_jpeg_change_no_pixel(kind: str):
    np.testing.assert_array_equal(decode_rgb(odd_jpegs()[kind]), rgb_of(odd_jpegs()["plain"]))


def test_a_progressive_jpeg_with_stray_bytes():
    data = stored(Image.fromarray(PICTURE), "JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    np.testing.assert_array_equal(decode_rgb(data[:second] + b"\0" + data[second:]), rgb_of(data))


def test_what_damaged_pixels_leave_is_no_harmless_oddity():
    """A flipped bit shifts all that follows, and bytes are left over at the end: libjpeg's words are the same."""
    picture = cv2.resize(PICTURE, (450, 300), interpolation=cv2.INTER_CUBIC)
    data = stored(Image.fromarray(picture), "JPEG", quality=90)
    start, refused = data.index(b"\xff\xda") + 14, 0
    for position in np.random.default_rng(1).integers(start, len(data) - 2, 60):
        changed = bytearray(data)
        changed[position] ^= 16
        try:
            simplejpeg.decode_jpeg(bytes(changed))
        except ValueError:
            refused += 1
            with pytest.raises(ValueError):
                decode_rgb(bytes(changed))
    assert refused > 5


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_every_truncated_jpeg_is_refused(options: dict):
    data = stored(Image.fromarray(PICTURE), "JPEG", **options)
    for length in range(0, len(data), max(1, len(data) // 60)):
        with pytest.raises(ValueError):
            decode_rgb(data[:length])


@pytest.mark.parametrize("picture", [Image.fromarray(PICTURE), Image.fromarray(IDS)], ids=["image", "mask"])
def test_every_truncated_or_changed_png_is_refused(picture: Image.Image):
    """libspng alone lets 3 of 4 flipped bits pass; the checksums of the chunks show every one."""
    data = stored(picture, "PNG")
    decode = decode_indices if picture.mode == "L" else decode_rgb
    for length in range(8, len(data), max(1, len(data) // 60)):
        with pytest.raises(ValueError, match="truncated PNG"):
            decode(data[:length])
    for position in RNG.integers(8, len(data), 100):
        changed = bytearray(data)
        changed[position] ^= 1 << int(RNG.integers(8))
        with pytest.raises(ValueError):
            decode(bytes(changed))


def test_a_png_that_holds_too_little_is_refused():
    """Checksums are right, but rows are missing."""
    chunks = list(png_chunks(stored(Image.fromarray(PICTURE), "PNG")))
    half = zlib.compress(zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))[: 15 * 136])
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", bytes(chunks[0][1])), (b"IDAT", half), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    with pytest.raises(ValueError, match="damaged PNG"):
        decode_rgb(data)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: cannot be read"):
        read_image(tmp_path / "a.png")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"b\.png: cannot be read: No such file"):
        read_image(tmp_path / "b.png")
