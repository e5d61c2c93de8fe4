from __future__ import annotations

from pathlib import Path

import pytest

from recyclelora.data.datasets.account import account
from recyclelora.data.datasets.own import OwnSplit, matches
from recyclelora.system.errors import UserError

from .test_own import touch


def splits(root: Path) -> list[OwnSplit]:
    return [OwnSplit("train", root, "x/**/*.{png,jpg}", "y/**/*.png"), OwnSplit("test", root, "t/*.jpg", None)]


def test_suffixes_match_in_any_case(tmp_path: Path):
    root = touch(tmp_path, "x/1.JPG", "x/2.jpg", "x/3.Png", "X/4.jpg")
    assert list(matches(root, "x/*.{png,jpg}")) == [("1",), ("2",), ("3",)]
    touch(tmp_path, "x/2.JPG")
    with pytest.raises(UserError, match=r"matches both x/2\.JPG and x/2\.jpg as one sample"):
        matches(root, "x/*.{png,jpg}")


def test_hidden_files_are_no_images_unless_they_are_named(tmp_path: Path):
    root = touch(tmp_path, "x/1.png", "x/._1.png", "x/.ipynb_checkpoints/1.png", ".y/1.png")
    assert list(matches(root, "x/**/*.png")) == [("", "1")]
    assert list(matches(root, ".y/*.png")) == [("1",)]


def test_a_looped_link_shows_no_file_twice(tmp_path: Path):
    root = touch(tmp_path, "x/a/1.png", "elsewhere/2.png")
    (tmp_path / "x/a/loop").symlink_to(tmp_path / "x")
    (tmp_path / "x/self").symlink_to(".")
    (tmp_path / "x/b").symlink_to(tmp_path / "elsewhere")
    assert list(matches(root, "x/**/*.png")) == [("a/", "1"), ("b/", "2")]
    loops = account(root, [OwnSplit("train", root, "x/**/*.png", None)], ["train"]).unused[
        "links to a folder that they lie in"
    ]
    assert [path.relative_to(root).as_posix() for path in loops] == ["x/self", "x/a/loop"]


def test_a_link_to_what_lies_above_a_split_brings_no_other_splits_in(tmp_path: Path):
    root = touch(tmp_path / "data", "train/1.png", "val/2.png")
    touch(tmp_path, "away/real/3.png", "away/4.png")
    for link, target in (("train/up", ".."), ("train/b", tmp_path / "away/real"), ("train/b/over", "..")):
        (root / link).symlink_to(target)
    assert list(matches(root, "train/**/*.png")) == [("", "1"), ("b/", "3")]


def test_a_legend_is_no_file_that_was_forgotten(tmp_path: Path):
    root = touch(tmp_path, "x/1.png", "y/1.png", "labelmap.txt", "x/labelmap.txt")
    found = account(root, [OwnSplit("train", root, "x/*.png", "y/*.png")], ["train"])
    assert root / "labelmap.txt" in found.used
    assert found.unused == {"matched by no pattern": [root / "x/labelmap.txt"]}


def test_every_file_is_used_or_told_with_its_reason(tmp_path: Path):
    root = touch(tmp_path, "x/1.png", "y/1.png", "x/2.jpg", "y/3.png", "y/4.png", "x/5.tif", "x/._1.png", "readme.md",
                 "t/6.jpg", "t/7.jpeg")  # fmt: skip
    found = account(root, splits(root), ["train"])
    unused = {reason: [p.relative_to(root).as_posix() for p in paths] for reason, paths in found.unused.items()}
    assert unused == {
        "matched by no pattern": ["readme.md", "t/7.jpeg", "x/5.tif"],
        "of a split that is not asked for, test": ["t/6.jpg"],
        "hidden": ["x/._1.png"],
        "images without a mask": ["x/2.jpg"],
        "masks without an image": ["y/3.png", "y/4.png"],
    }
    every = {path for path in root.rglob("*") if path.is_file()}
    assert found.used | {path for paths in found.unused.values() for path in paths} == every
    assert found.line() == (
        f"{root}: 2 files are used, others are not: 3 matched by no pattern (readme.md, t/7.jpeg, ...); 1 of a split "
        "that is not asked for, test (t/6.jpg); 1 hidden (x/._1.png); 1 images without a mask (x/2.jpg); 2 masks "
        "without an image (y/3.png, y/4.png)"
    )


def test_nothing_is_told_where_everything_is_used(tmp_path: Path):
    root = touch(tmp_path, "x/1.png", "y/1.png", "t/6.jpg")
    assert account(root, splits(root), ["train", "test"]).line() is None
