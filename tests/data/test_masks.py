from __future__ import annotations

import os

import numpy as np
import pytest
from conftest import save_palette, save_rgb
from fixture_data import save_ids16, save_red16
from PIL import Image

from recyclelora.data.labels import IGNORE
from recyclelora.data.masks import ColourIds, read_ids16, read_red16
from recyclelora.data.reading import read_indices
from recyclelora.system.errors import UserError


def test_ids_are_in_the_red_channel_of_16_bit_colours(tmp_path):
    ids = np.arange(12).reshape(3, 4) * 30
    save_red16(tmp_path / "a.png", ids, instances=900)
    assert np.asarray(Image.open(tmp_path / "a.png")).max() < 4  # what Pillow makes of it: the high bytes
    read = read_red16(tmp_path / "a.png")
    np.testing.assert_array_equal(read, ids)
    assert read.dtype == np.uint16


def test_other_encodings_than_16_bit_colours_are_refused(tmp_path):
    save_rgb(tmp_path / "8.png", np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match=r"8\.png: expected a 16-bit RGB mask, got uint8"):
        read_red16(tmp_path / "8.png")
    save_ids16(tmp_path / "grey.png", np.zeros((3, 4)))
    with pytest.raises(UserError, match="expected a 16-bit RGB mask"):
        read_red16(tmp_path / "grey.png")
    save_red16(tmp_path / "a.png", np.random.default_rng(0).integers(0, 9, (40, 40)))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.png: (truncated|not a readable)"):
        read_red16(tmp_path / "a.png")
    with pytest.raises(UserError, match="No such file"):
        read_red16(tmp_path / "b.png")


def test_ids_of_16_bits_are_never_cut_to_8(tmp_path):
    save_ids16(tmp_path / "a.png", np.array([[0, 255, 256, 65535]]))
    assert read_ids16(tmp_path / "a.png").tolist() == [[0, 255, 256, 65535]]


def test_ids_of_grey_palette_and_bilevel_masks(tmp_path):
    ids = np.array([[0, 7, 200]], np.uint8)
    save_rgb(tmp_path / "grey.png", ids)
    save_palette(tmp_path / "palette.png", ids)
    Image.fromarray(ids == 7).save(tmp_path / "bits.png")
    assert read_ids16(tmp_path / "grey.png").tolist() == read_ids16(tmp_path / "palette.png").tolist() == ids.tolist()
    assert read_ids16(tmp_path / "bits.png").tolist() == [[0, 1, 0]]
    save_rgb(tmp_path / "rgb.png", np.zeros((1, 3, 3), np.uint8))
    with pytest.raises(UserError, match=r"rgb\.png: expected ids, got mode RGB.*coding\.kind"):
        read_ids16(tmp_path / "rgb.png")
    Image.fromarray(np.array([[70_000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="do not fit 16 bits"):
        read_ids16(tmp_path / "a.tif")


COLOURS = ColourIds((((255, 0, 0), 0), ((0, 0, 200), 1), ((0, 0, 0), IGNORE)))


def test_colours_are_train_ids(tmp_path):
    save_rgb(tmp_path / "a.png", np.array([[[255, 0, 0], [0, 0, 200], [0, 0, 0]]], np.uint8))
    assert COLOURS(tmp_path / "a.png").tolist() == [[0, 1, IGNORE]]
    Image.open(tmp_path / "a.png").convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert COLOURS(tmp_path / "p.png").tolist() == [[0, 1, IGNORE]]


def test_colours_that_are_no_class_are_named_or_ignored(tmp_path):
    save_rgb(tmp_path / "a.png", np.array([[[255, 0, 0], [1, 2, 254]]], np.uint8))
    with pytest.raises(UserError, match=r"a\.png: colours that are no class, such as #0102fe"):
        COLOURS(tmp_path / "a.png")
    tolerant = ColourIds(COLOURS.train_ids, ignore_others=True)
    assert tolerant(tmp_path / "a.png").tolist() == [[0, IGNORE]]


def test_colours_of_16_bits_or_grey_are_refused(tmp_path):
    save_red16(tmp_path / "a.png", np.full((2, 2), 255))
    save_rgb(tmp_path / "grey.png", np.zeros((2, 2), np.uint8))
    for name in ("a", "grey"):
        with pytest.raises(UserError, match="expected a mask in 8-bit colours"):
            COLOURS(tmp_path / f"{name}.png")


@pytest.mark.parametrize("read", [read_indices, read_ids16, ColourIds((((7, 7, 7), 0),))])
def test_a_jpeg_is_no_mask_whatever_its_name(tmp_path, read):
    mode = "RGB" if isinstance(read, ColourIds) else "L"
    Image.fromarray(np.full((8, 8), 7, np.uint8)).convert(mode).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(UserError, match=r"a\.png: is a JPEG"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_indices, read_ids16, read_red16, ColourIds((((7, 7, 7), 0),))])
def test_what_is_no_image_and_what_never_ends_is_told_in_one_line(tmp_path, read):
    (tmp_path / "a.png").write_bytes(b"x" * 50)
    with pytest.raises(UserError, match=r"a\.png: (cannot be read: )?not a readable image$"):
        read(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: cannot be read: not a regular file$"):
        read(tmp_path / "pipe.png")
