from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixture_data import make_own, save_ids16

from recyclelora.data.datasets.files import UnpairedFiles
from recyclelora.data.datasets.own import OwnSplit, matches, own_folder
from recyclelora.data.labels import IGNORE, explicit_table
from recyclelora.data.masks import read_ids16
from recyclelora.data.patterns import translated, wildcards
from recyclelora.system.errors import UserError

TABLE = explicit_table({500: 0, 3: 1}, 2, {255}, ignore_others=False)


def opened(root: Path, images: str, masks: str | None):
    return own_folder("folder", OwnSplit("val", root, images, masks), TABLE, read_ids16)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_pairs_by_what_wildcards_match(tmp_path: Path):
    root = touch(tmp_path, "x/a/1_left.png", "x/b/1_left.jpg", "x/b/2_left.png", "y/a/1_ids.png", "y/b/1_ids.png",
                 "y/b/2_ids.png", "y/b/2_other.png", "x/readme.txt")  # fmt: skip
    images = matches(root, "x/**/*_left.{png,jpg}")
    assert [str(p.relative_to(root)) for p in images.values()] == ["x/a/1_left.png", "x/b/1_left.jpg", "x/b/2_left.png"]
    assert images.keys() == matches(root, "y/**/*_ids.png").keys() == {("a/", "1"), ("b/", "1"), ("b/", "2")}
    assert list(matches(root, "x/b/*_left.png")) == [("2",)]
    assert matches(root, "x/?/1_left.png").keys() == {("a",)}
    assert matches(root, "nowhere/*.png") == {}


def test_pattern_language():
    assert translated("a.b/*") == r"a\.b/([^/]*)"
    assert wildcards("x/**/a*_{png,jpg}?") == ["**/", "*", "?"]


def test_files_that_are_one_sample_twice_are_refused(tmp_path: Path):
    root = touch(tmp_path, "x/1.png", "x/1.jpg")
    with pytest.raises(UserError, match=r"matches both x/1\.jpg and x/1\.png"):
        matches(root, "x/*.{png,jpg}")


def test_symlinked_folders_are_followed(tmp_path: Path):
    touch(tmp_path / "real", "1.png")
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").symlink_to(tmp_path / "real")
    assert matches(tmp_path, "x/**/*.png").keys() == {("a/", "1")}


def test_reads_ids_of_16_bits(tmp_path: Path):
    make_own(tmp_path, [500, 3, 255], save_ids16)
    dataset = opened(tmp_path, "images/val/*.jpg", "masks/val/*.png")
    assert len(dataset) == 3 and dataset.classes == {0, 1}
    stored = read_ids16(dataset.items[0].label)
    np.testing.assert_array_equal(dataset.load(0).label, np.select([stored == 500, stored == 3], [0, 1], IGNORE))


def test_an_id_that_would_wrap_to_a_class_is_refused(tmp_path: Path):
    make_own(tmp_path, [256 + 3, 500], save_ids16, splits=["val"])
    with pytest.raises(UserError, match=r"000\.png: label ids \[259\] are not defined"):
        opened(tmp_path, "images/val/*.jpg", "masks/val/*.png").load(0)


def test_missing_masks_are_named_with_the_place_where_they_should_be(tmp_path: Path):
    make_own(tmp_path, [3], save_ids16, splits=["val"])
    (tmp_path / "masks/val/001.png").unlink()
    with pytest.raises(
        UnpairedFiles, match=r"1 of 3 images have no label: images/val/001\.jpg, expected masks/val/001\.png"
    ):
        opened(tmp_path, "images/val/*.jpg", "masks/val/*.png")
    with pytest.raises(UserError, match=r"no image matches images/train/\*\.jpg"):
        opened(tmp_path, "images/train/*.jpg", "masks/train/*.png")
    with pytest.raises(UserError, match=r"data\.folder\.root=.*/nowhere: no such folder"):
        opened(tmp_path / "nowhere", "*.jpg", None)


def test_images_without_masks_can_be_predicted(tmp_path: Path):
    make_own(tmp_path, [3], save_ids16, splits=["new"], unlabelled=["new"])
    dataset = opened(tmp_path, "images/new/*.jpg", None)
    assert not dataset.labelled and (dataset.load(2).label == IGNORE).all()
    assert dataset.load(2).name == "images/new/002.jpg"
