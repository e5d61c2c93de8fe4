from __future__ import annotations

from pathlib import Path

import pytest

from recyclelora.data.datasets.account import account
from recyclelora.data.datasets.division import Division, listed
from recyclelora.data.datasets.own import OwnSplit
from recyclelora.data.folder import FolderConfig, SplitConfig, masks_beside
from recyclelora.data.patterns import odd_braces
from recyclelora.system.errors import UserError

from .test_own import touch

NAMES = [f"day/{index:03d}.jpg" for index in range(200)]


def test_shares_are_exact_disjoint_and_move_little_when_images_are_added():
    division = Division({"train": 0.7, "val": 0.2}, seed=0)
    found = division.of(NAMES)
    assert {name: len(chosen) for name, chosen in found.items()} == {"train": 140, "val": 40}
    assert not found["train"] & found["val"]
    assert division.of(NAMES[::-1]) == found  # whatever the order of the files
    assert Division({"train": 0.7, "val": 0.2}, seed=1).of(NAMES) != found
    more = division.of([*NAMES, "day/200.jpg"])
    assert len(more["train"] ^ found["train"]) <= 3 and len(more["val"] ^ found["val"]) <= 3


def test_groups_stay_together_and_come_near_their_shares():
    frames = [
        f"{drive}/{index}.png"
        for drive, count in (("a", 300), ("b", 171), ("c", 124), ("d", 101))
        for index in range(count)
    ]
    found = Division({"train": 0.8, "val": 0.2}, seed=0, group=FolderConfig(root="", group="1").drive()).of(frames)
    assert {split: {name[0] for name in chosen} for split, chosen in found.items()} == {
        "train": set("abd"),
        "val": {"c"},
    }
    assert sum(map(len, found.values())) == len(frames)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match=r"splits\.val\.share: nothing of 1 groups"):
        Division({"train": 0.8, "val": 0.2}, 0, r"^(day)/").of(NAMES)
    with pytest.raises(UserError, match=r"does not match night/1\.jpg"):
        Division({"train": 0.8, "val": 0.2}, 0, r"^(day)/").of([*NAMES, "night/1.jpg"])


def test_lists_name_images_as_people_write_them(tmp_path: Path):
    images = ["day/1.jpg", "day/2.jpg", "night/1.jpg", "night/a b.jpg"]
    (tmp_path / "list.txt").write_text(
        "# of the day\n\nday/1.jpg\r\n2\n/elsewhere/night/1.jpg /elsewhere/gt/1.png\na b.jpg\n"
    )
    assert listed(tmp_path / "list.txt", images) == set(images)
    for text, words in {
        "3.jpg\nday/1": "1 of 2 lines name no image: 3.jpg",
        "1.jpg": "day/1.jpg as well as night/1.jpg",
        "\n": "names no image",
    }.items():  # fmt: skip
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(UserError, match=words):
            listed(tmp_path / "list.txt", images)
    with pytest.raises(UserError, match="cannot be read"):
        listed(tmp_path / "no.txt", images)


def test_a_flat_folder_tells_images_from_masks_and_every_file_has_its_reason(tmp_path: Path):
    root = touch(tmp_path, *(f"{name}{end}.png" for name in "abcdef" for end in ("", "_mask")), "train.txt", "g.png")
    (root / "train.txt").write_text("a\nb\n")
    common = {"root": root, "images": "*.png", "masks": "*_mask.png", "exclude": ("f.*",)}
    found = OwnSplit("train", **common, list="train.txt").find()
    assert [path.name for path in found.images.values()] == ["a.png", "b.png"]
    told = account(root, [OwnSplit("train", **common, list="train.txt")], ["train"]).unused
    assert {reason: [path.name for path in paths] for reason, paths in told.items()} == {
        "not in train.txt": ["c.png", "c_mask.png", "d.png", "d_mask.png", "e.png", "e_mask.png", "g.png"],
        "excluded": ["f.png", "f_mask.png"],
    }
    with pytest.raises(UserError, match=r"exclude: nothing below .* matches q\*"):
        OwnSplit("train", root, "*.png", "*_mask.png", exclude=("q*",)).find()


def test_braces_that_both_patterns_have_tell_samples_apart(tmp_path: Path):
    root = touch(tmp_path, "left/1.jpg", "right/1.jpg", "left_gt/1.png", "right_gt/1.png")
    found = OwnSplit("all", root, "{left,right}/*.{jpg,png}", "{left,right}_gt/*.png").find()
    assert {i.parent.name: found.masks[key].parent.name for key, i in found.images.items()} == {
        "left": "left_gt", "right": "right_gt",
    }  # fmt: skip
    with pytest.raises(UserError, match="braces tell samples apart where images and masks have the same"):
        OwnSplit("all", root, "{left,right}/*.jpg", "{left_gt,right_gt}/*.png").find()
    assert [odd_braces(p) for p in ("*.{jpg,png}", "{a,b}/**/*.png")] == [None, None]
    assert all(odd_braces(p) for p in ("{a*,b}/*.png", "*{.jpg,.png}", "{a,{b,c}}/*", "a}/*.png"))


def test_options_of_own_splits_are_checked():
    def wrong(**values):
        split = SplitConfig(**({"images": "*.jpg", "masks": "*.png"} | values))
        return [name for name, _ in (*split.check(), *split.check_new())]

    assert wrong() == wrong(share=0.5) == wrong(list="train.txt") == []
    assert wrong(share=1.0) == wrong(share=0.5, list="a.txt") == ["share"]
    assert wrong(list="../a.txt") == ["list"] and wrong(masks="*.jpg") == ["masks"]
    thirds = {name: SplitConfig(images="*.jpg", share=0.4) for name in ("train", "val", "test")}
    assert [name for name, _ in FolderConfig(root="", splits=thirds, group="(").check()] == ["splits", "group"]


def test_a_split_inherits_no_masks_for_images_elsewhere():
    assert masks_beside("test", "images/test/**/*.{png,jpg,jpeg}") == "masks/test/**/*.png"
    assert masks_beside("test", "images/test/**/*.jpg") == "masks/test/**/*.png"
    assert masks_beside("test", "images/new/**/*.jpg") is masks_beside("test", "new/*.jpg") is None
