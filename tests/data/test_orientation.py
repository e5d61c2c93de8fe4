"""Photographs that are stored as the sensor lies: Pillow's own turn is the oracle, on files that Pillow writes."""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, save_rgb
from fixture_data import make_bdd100k, make_own, save_ids16
from PIL import Image, ImageOps

from recyclelora.data.build import build_datasets
from recyclelora.data.datasets import digest, open_dataset
from recyclelora.data.decoding import decode_rgb
from recyclelora.data.headers import orientation, read_header, read_headers
from recyclelora.data.orientation import turned
from recyclelora.data.reading import read_image, read_upright
from recyclelora.reports.inspection.pair import open_datasets
from recyclelora.reports.inspection.scan import scan
from recyclelora.system.errors import UserError

RNG = np.random.default_rng(0)
PICTURE = cv2.resize(RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8), (90, 60), interpolation=cv2.INTER_CUBIC)


def photograph(picture: np.ndarray, turn: int, kind: str = "JPEG", **options) -> bytes:
    """A file that stores these pixels and asks for a turn."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", turn
    asked = {"tiffinfo": {0x0112: turn}} if kind == "TIFF" else {"exif": exif}
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **asked, **options)
    return file.getvalue()


def as_shown(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_every_turn_of_every_kind(kind: str, options: dict, turn: int, tmp_path: Path):
    data = photograph(PICTURE, turn, kind, **options)
    (tmp_path / "a").write_bytes(data)
    header = read_header(tmp_path / "a")
    assert (header.size, header.orientation, orientation(data)) == ((60, 90), turn, turn)
    assert header.turned_size == as_shown(data).shape[:2]
    np.testing.assert_array_equal(turned(decode_rgb(data), turn), as_shown(data))
    np.testing.assert_array_equal(read_upright(tmp_path / "a"), as_shown(data))


@pytest.mark.parametrize(
    "block", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", bytes(40)]
)
def test_damaged_metadata_turn_nothing(block: bytes):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG", exif=block)
    assert orientation(file.getvalue()) == 1


def test_a_value_that_is_no_turn_turns_nothing():
    assert orientation(photograph(PICTURE, 9)) == 1


@pytest.fixture
def own(tmp_path: Path, make_config):
    """``own(image bytes by name, masks by name, ...)`` opens them as the training split of ``data=folder``."""

    def opened(images: dict[str, bytes], masks: dict[str, np.ndarray], *overrides: str):
        root = tmp_path / "own"
        make_own(root, [0, 1], save_ids16, splits=["val", "test"])
        (root / "images/train").mkdir(parents=True, exist_ok=True)
        for name, data in images.items():
            (root / "images/train" / f"{name}.jpg").write_bytes(data)
        for name, mask in masks.items():
            save_rgb(root / "masks/train" / f"{name}.png", mask)
        config = make_config(*TINY, "data=folder", f"data.folder.root={root}", *overrides)
        return build_datasets(config.data, config.cache).sources[0], config

    return opened


def halves(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture that is bright where its mask is 1: in its upper half."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 1
    return np.repeat(mask[..., None] * 200, 3, axis=2), mask


def lies_under(sample) -> bool:
    return np.array_equal(sample.image[..., 0] > 100, sample.label == 1)


def stored_for(shown: np.ndarray, turn: int) -> np.ndarray:
    """The pixels that a camera held so stores: turned by ``turn`` they are the picture as shown."""
    return turned(shown, {6: 8, 8: 6}.get(turn, turn))


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_mask_tells_by_its_size_on_which_grid_it_lies(own, turn: int):
    shown, mask = halves(96, 64)
    sample = own({"a": photograph(stored_for(shown, turn), turn)}, {"a": mask})[0].load(0)
    assert sample.label.shape == (96, 64) and lies_under(sample)
    stored, mask = halves(64, 96)
    sample = own({"a": photograph(stored, turn)}, {"a": mask})[0].load(0)
    assert sample.label.shape == (64, 96) and lies_under(sample)


@pytest.mark.parametrize("turn", [3, 6, 7])
def test_a_square_tells_nothing_and_is_refused_until_somebody_does(own, turn: int):
    shown, mask = halves(96, 96)
    files = {"a": photograph(stored_for(shown, turn), turn)}, {"a": mask}
    with pytest.raises(UserError, match=r"1 images carry an EXIF orientation .* images/train/a\.jpg.*turned.*stored"):
        own(*files)
    drawn_as_shown, _ = own(*files, "data.orientation=turned")
    assert lies_under(drawn_as_shown.load(0))
    stored, mask = halves(96, 96)
    drawn_as_stored, _ = own({"a": photograph(stored, turn)}, {"a": mask}, "data.orientation=stored")
    assert lies_under(drawn_as_stored.load(0))


def test_the_other_files_of_a_set_tell_where_one_cannot(own):
    shown, mask = halves(96, 64)
    square, its = halves(96, 96)
    upside, below = halves(64, 96)
    images = {"a": photograph(stored_for(shown, 6), 6), "b": photograph(stored_for(square, 6), 6),
              "c": photograph(stored_for(upside, 3), 3), "d": photograph(upside, 1)}  # fmt: skip
    dataset, _ = own(images, {"a": mask, "b": its, "c": below, "d": below})
    assert all(lies_under(dataset.load(index)) for index in range(4))
    portrait = photograph(halves(64, 96)[0], 6)  # and one whose mask lies on the stored grid
    with pytest.raises(UserError, match="2 images carry"):
        own({"e": portrait}, {"e": halves(64, 96)[1]})


def test_a_mask_with_the_metadata_of_its_image_was_made_from_the_stored_pixels(own, tmp_path: Path):
    stored, mask = halves(96, 96)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "own/masks/train").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "own/masks/train/a.png", exif=exif)
    assert lies_under(own({"a": photograph(stored, 6)}, {})[0].load(0))


def test_turned_images_are_other_data(own):
    shown, mask = halves(96, 96)
    files = {"a": photograph(stored_for(shown, 6), 6)}, {"a": mask}
    assert digest([own(*files, "data.orientation=turned")[0]]) != digest([own(*files, "data.orientation=stored")[0]])
    plain = {"a": photograph(shown, 1)}, {"a": mask}
    assert digest([own(*plain, "data.orientation=turned")[0]]) == digest([own(*plain)[0]])


def test_images_without_masks_are_turned_as_they_are_shown(own):
    shown, _ = halves(96, 96)
    data = photograph(stored_for(shown, 6), 6)
    _, config = own({"a": data}, {"a": halves(96, 96)[1]}, "data.orientation=turned")
    config.data.folder.splits["train"].masks = None
    config.data.orientation = None
    parts, _ = open_datasets(config.data, config.cache)
    np.testing.assert_array_equal(parts[0].dataset.load(0).image, as_shown(data))


def test_downloads_of_photographs_are_turned_like_a_users_own(tmp_path: Path):
    root = make_bdd100k(tmp_path)
    path = sorted((root / "bdd100k/images/10k/val").glob("*.jpg"))[0]
    data = photograph(stored_for(np.asarray(Image.open(path)), 8), 8)
    path.write_bytes(data)
    np.testing.assert_array_equal(open_dataset("bdd100k", "val", root=root).load(0).image, as_shown(data))


def test_every_oriented_file_is_named_by_the_inspection(own):
    shown, mask = halves(96, 64)
    stored, its = halves(64, 96)
    images = {"a": photograph(stored_for(shown, 6), 6), "b": photograph(stored, 6), "c": photograph(shown, 1)}
    dataset, config = own(images, {"a": mask, "b": its, "c": mask})
    found = [defect for i in range(3) for defect in scan(dataset, i, "own").defects]
    assert [(d.kind, d.file, d.detail) for d in found] == [
        ("EXIF orientation", "images/train/a.jpg", "orientation 6: turned"),
        ("EXIF orientation", "images/train/b.jpg", "orientation 6: read as stored, as its mask lies"),
    ]
    square, its = halves(96, 96)
    with pytest.raises(UserError):
        own({"s": photograph(square, 3)}, {"s": its})
    defects = open_datasets(config.data, config.cache)[1]
    assert [(d.severity, d.kind, Path(d.file).name) for d in defects] == [("error", "EXIF orientation", "s.jpg")]


def test_an_odd_jpeg_is_named_by_the_inspection(own):
    shown, mask = halves(96, 64)
    data = photograph(shown, 1)
    dataset, _ = own({"a": data[:-2] + bytes(40) + data[-2:], "b": data}, {"a": mask, "b": mask})
    (defect,) = [defect for i in range(2) for defect in scan(dataset, i, "own").defects]
    assert (defect.kind, defect.file) == ("odd JPEG", "images/train/a.jpg")
    assert re.fullmatch(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9; read all the same", defect.detail)


def test_stored_pixels_are_still_to_be_had(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(photograph(PICTURE, 6))
    assert read_image(tmp_path / "a.jpg").shape == (60, 90, 3)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_a_photograph_above_pillows_bound_is_read_and_turned(tmp_path: Path, monkeypatch, kind: str):
    """Pillow opens nothing above 179 megapixels; here the bound is 200 pixels instead."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(RNG.integers(0, 255, (20, 40, 3), np.uint8)).save(path, kind, exif=exif)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    header = read_header(path)
    assert header is not None and (header.size, header.orientation, header.turned_size) == ((20, 40), 6, (40, 20))
    assert read_upright(path).shape == (40, 20, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_headers_above_pillows_bound_are_read_side_by_side(tmp_path: Path, monkeypatch):
    paths = [tmp_path / f"{number}.jpg" for number in range(40)]
    for number, path in enumerate(paths):
        save_rgb(path, np.full((20 + number, 40), 3, np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert [header.size[0] for header in read_headers(paths) if header] == list(range(20, 60))
    assert Image.MAX_IMAGE_PIXELS == 100
