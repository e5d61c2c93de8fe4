"""Masks whose picture is the same and whose stored numbers are others; files are written by hand from the standard."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, save_palette, save_rgb
from fixture_data import blocks, make_own
from PIL import Image

from recyclelora.data.build import build_datasets
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, IGNORE, explicit_table, lookup_table
from recyclelora.data.masks import read_ids16
from recyclelora.data.reading import read_indices, read_label
from recyclelora.reports.inspection.pair import data_report
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter
from recyclelora.system.stopping import StopRequest

CITY = lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN)
RNG = np.random.default_rng(0)
READERS = pytest.mark.parametrize("read", [read_indices, read_ids16])


def save_bits(path: Path, numbers: np.ndarray, bits: int, greys: np.ndarray | None = None) -> None:
    """A grey PNG of so few bits, or with ``greys`` a palette one, as optimisers write them; rows end on whole bytes."""
    height, width = numbers.shape
    spread = np.unpackbits(numbers.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = np.packbits(spread.reshape(height, -1), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0 if greys is None else 3, 0, 0, 0))]
    chunks += [] if greys is None else [(b"PLTE", np.repeat(greys.astype(np.uint8), 3).tobytes())]
    chunks += [(b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ))  # fmt: skip


def as_oxipng(path: Path, ids: np.ndarray) -> None:
    """The grey picture of these ids as a palette of its greys, of as few bits as it takes."""
    greys = np.unique(ids)
    bits = next(bits for bits in (1, 2, 4, 8) if len(greys) <= 1 << bits)
    save_bits(path, np.searchsorted(greys, ids), bits, greys)
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("L")), ids)  # the picture is the same


@READERS
@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_gives_its_numbers(tmp_path: Path, read, bits: int):
    ids = RNG.integers(0, 1 << bits, (7, 13)).astype(np.uint8)
    save_bits(tmp_path / "a.png", ids, bits)
    spread = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(spread, ids * (255 // ((1 << bits) - 1)))  # what a decoder makes of it
    np.testing.assert_array_equal(read(tmp_path / "a.png", CITY), ids)


@READERS
@pytest.mark.parametrize("ids", [[7, 8], [7, 8, 11, 23], [*range(7, 20)], [*range(0, 34, 2)]])
def test_a_grey_mask_that_became_a_palette_of_its_greys(tmp_path: Path, read, ids: list[int]):
    mask = blocks(RNG, ids).astype(np.uint8)
    as_oxipng(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(read(tmp_path / "a.png", CITY), mask)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", CITY, read), CITY[mask])


@READERS
def test_palettes_of_colours_or_of_greys_that_no_id_has_are_indices(tmp_path: Path, read):
    ids = blocks(RNG, [0, 1, 2, 3]).astype(np.uint8)
    save_palette(tmp_path / "colours.png", ids)
    save_bits(tmp_path / "shown.png", ids, 2, np.array([0, 85, 170, 255]))  # greys to look at
    save_bits(tmp_path / "same.png", ids, 4, np.arange(16))
    save_bits(tmp_path / "few_of_many.png", ids, 8, 10 * np.arange(20))  # 0, 10, 20 and 30 are ids, 190 is none
    save_bits(tmp_path / "black_white.png", ids % 2, 1, np.array([0, 255]))
    for name, expected in [
        ("colours", ids),
        ("shown", ids),
        ("same", ids),
        ("few_of_many", ids),
        ("black_white", ids % 2),
    ]:
        np.testing.assert_array_equal(read(tmp_path / f"{name}.png", CITY), expected)


def test_where_every_number_is_an_id_the_classes_decide_or_the_mask_is_refused(tmp_path: Path):
    ids = blocks(RNG, [300 % 256, 40, 7]).astype(np.uint8)
    as_oxipng(tmp_path / "a.png", ids)
    named = explicit_table({44: 0, 40: 1, 7: 2}, 3, {255}, ignore_others=True)
    assert set(np.unique(read_label(tmp_path / "a.png", named, read_ids16))) == {0, 1, 2}
    places = explicit_table({0: 0, 1: 1, 2: 2}, 3, {255}, ignore_others=True)
    assert set(np.unique(read_label(tmp_path / "a.png", places, read_ids16))) == {0, 1, 2}
    both = explicit_table({0: 0, 1: 1, 40: 2}, 3, {255}, ignore_others=True)
    with pytest.raises(
        UserError,
        match=r"a\.png: its pixels are places .* the greys \[7, 40, 44\].* write the mask as an 8-bit grey PNG",
    ):
        read_label(tmp_path / "a.png", both, read_ids16)


def test_an_optimised_folder_trains_on_the_same_labels(tmp_path: Path, make_config):
    plain, small = tmp_path / "plain", tmp_path / "small"
    make_own(plain, [0, 1, 8, 10, 13], lambda path, ids: save_rgb(path, ids.astype(np.uint8)))
    make_own(small, [0, 1, 8, 10, 13], lambda path, ids: as_oxipng(path, ids.astype(np.uint8)))
    configs = [make_config(*TINY, "data=folder", f"data.folder.root={root}") for root in (plain, small)]
    before, after = (build_datasets(config.data, config.cache).sources[0] for config in configs)
    for index in range(3):
        np.testing.assert_array_equal(before.load(index).label, after.load(index).label)
    assert set(np.unique(after.load(0).label)) == {0, 1, 8, 10, 13}


def test_few_bits_among_masks_of_8_bits_are_told(tmp_path: Path, make_config):
    root = make_own(tmp_path / "own", [0, 1], lambda path, ids: save_rgb(path, ids.astype(np.uint8)))
    save_bits(root / "masks/train/001.png", np.ones((48, 96), np.uint8), 1)
    config = make_config(*TINY, "data=folder", f"data.folder.root={root}")
    report, _ = data_report(config.data, config.cache, 0, Reporter(enabled=False), StopRequest())
    told = [(d.severity, d.dataset, d.file, d.detail) for d in report.defects if d.kind == "grey of few bits"]
    assert told == [("warning", "folder (source)", "images/train/001.jpg", "1 bits, others have 8: read as 0 to 1")]


@pytest.mark.slow
def test_a_mask_of_180_megapixels_is_read(tmp_path: Path):
    save_bits(tmp_path / "a.png", np.ones((13500, 13500), bool), 1)
    with pytest.raises(UserError, match=r"a\.png: cannot be read: .*pixels"):
        read_ids16(tmp_path / "a.png")
    Image.MAX_IMAGE_PIXELS, before = 40, Image.MAX_IMAGE_PIXELS
    try:
        save_rgb(tmp_path / "b.png", np.full((10, 10), 3, np.uint8))
        assert (read_ids16(tmp_path / "b.png") == 3).all()
    finally:
        Image.MAX_IMAGE_PIXELS = before


def test_ignored_ids_stay_ignored(tmp_path: Path):
    mask = blocks(RNG, [7, 255, 11]).astype(np.uint8)
    as_oxipng(tmp_path / "a.png", mask)
    assert set(np.unique(read_label(tmp_path / "a.png", CITY, read_indices))) == {0, 2, IGNORE}
