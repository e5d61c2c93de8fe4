"""``recyclelora init-data``: what is found in folders as people have them, and that the file it writes opens them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY, compose_config, save_rgb
from fixture_data import make_own, save_ids16
from PIL import Image

from recyclelora.commands import init_data
from recyclelora.data.build import build_datasets
from recyclelora.data.labels import CITYSCAPES_CLASSES
from recyclelora.data.recognition.describe import describe_folder
from recyclelora.data.recognition.kinds import find_kinds
from recyclelora.data.recognition.layout import recognise
from recyclelora.system.errors import UserError


def photo(path: Path, size: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def mask(path: Path, *values: int, size: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.repeat(np.array(values, np.uint8), -(-size[1] // len(values)))[: size[1]]
    Image.fromarray(np.tile(stripes, (size[0], 1))).save(path)


def described(tmp_path: Path, root: Path, **changes: str):
    """The written options as they compose, their data opened, and what was said."""
    said: list[str] = []
    path = describe_folder(root, None, tmp_path / "conf", said.append)
    for old, new in changes.items():
        path.write_text(path.read_text().replace(old, new))
    config = compose_config(tmp_path, *TINY, f"hydra.searchpath=[file://{tmp_path / 'conf'}]", f"data={path.stem}")
    assert np.asarray(Image.open(path.with_suffix(".png"))).shape[2] == 3
    return config, build_datasets(config.data, config.cache), "\n".join(said)


def test_a_flat_folder_of_images_and_masks_side_by_side(tmp_path):
    for index in range(10):
        photo(tmp_path / f"yard/IMG_{index}.png")
        mask(tmp_path / f"yard/IMG_{index}_mask.png", 0, 7, 255)
    config, opened, said = described(tmp_path, tmp_path / "yard", class_7="machine")
    assert config.data.name == "yard" and config.data.targets == []
    assert config.data.classes.names == ["class_0", "machine"] and config.data.folder.coding.ids == {0: 0, 7: 1}
    assert (len(opened.sources[0]), len(opened.scored["source_val"])) == (8, 2)
    assert {*np.unique(opened.sources[0].load(0).label)} == {0, 1, 255}
    assert "train: 80% of 10 images with masks (*.png, *_mask.png)" in said and "experiment=finetune_small" in said
    with pytest.raises(UserError, match=r"yard\.yaml: is there already and is not overwritten"):
        describe_folder(tmp_path / "yard", None, tmp_path / "conf", print)


def test_colours_take_their_names_from_a_legend(tmp_path):
    palette = np.array([[10, 200, 30], [0, 0, 0], [90, 9, 200]], np.uint8)
    make_own(tmp_path / "mine", [0, 1, 2], lambda path, ids: save_rgb(path, palette[ids]), splits=["train", "val"])
    (tmp_path / "mine/label_colors.txt").write_text("10 200 30\tGrass\n90 9 200\tPath way\n0 0 0\tVoid\n")
    config, opened, _ = described(tmp_path, tmp_path / "mine")
    assert config.data.classes.names == ["Grass", "Path way"] and config.data.classes.colours[1] == [90, 9, 200]
    assert {name: len(d) for name, d in opened.scored.items()} == {"source_val": 3}
    assert {*np.unique(opened.sources[0].load(0).label)} <= {0, 1, 255}


def test_names_of_its_owner_take_the_place_of_made_up_ones_until_the_file_is_changed(tmp_path):
    root, said = tmp_path / "photos", list[str]()
    for number in range(4):
        photo(root / f"{number}.jpg")
        blocks = np.repeat(np.array([[0, 0, 0], [255, 0, 0], [0, 0, 9], [0, 255, 0]], np.uint8), 16, 0)
        save_rgb(root / f"{number}_mask.png", np.repeat(blocks[None], 48, 0))

    def write(*names: str) -> Path:
        return describe_folder(root, "yard", tmp_path / "conf", said.append, names=names or None)

    guessed = yaml.safe_load(write().read_text())["classes"]["names"]
    assert guessed == ["background", "class_1", "class_2", "class_3"]
    assert f"--names {','.join(guessed)}" in said[-1]
    for _ in range(2):
        told = yaml.safe_load(write("ignore", "thing", "thing", "plant").read_text())
        assert told["classes"] == {"names": ["thing", "plant"], "colours": [[0, 0, 9], [255, 0, 0]]}
        assert told["folder"]["coding"]["colours"] == {
            "#000000": "ignore", "#000009": "thing", "#00ff00": "thing", "#ff0000": "plant"}  # fmt: skip
    with pytest.raises(UserError, match="--names: 2 names for 4 classes: background, class_1, class_2, class_3"):
        write("a", "b")
    with pytest.raises(UserError, match="at least two different names"):
        write("a", "a", "ignore", "a")
    path = tmp_path / "conf/data/yard.yaml"
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(UserError, match="is there already"):
        write("a", "b", "c", "d")


def test_cityscapes_names_and_the_kind_of_masks_that_is_read(tmp_path):
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "lindau")):
        for frame in ("000000", "000001"):
            stem = f"{split}/{city}/{city}_{frame}"
            photo(tmp_path / f"city/leftImg8bit/{stem}_leftImg8bit.png")
            mask(tmp_path / f"city/gtFine/{stem}_gtFine_labelIds.png", 7, 26, 3)
            mask(tmp_path / f"city/gtFine/{stem}_gtFine_instanceIds.png", 7, 26)
    config, opened, _ = described(tmp_path, tmp_path / "city")
    assert config.data.classes.names == [*CITYSCAPES_CLASSES]
    assert config.data.folder.splits["train"].masks == "gtFine/train/**/*_gtFine_labelIds.png"
    assert len(opened.sources[0]) == 4 and {*np.unique(opened.sources[0].load(0).label)} == {0, 13, 255}


def test_ids_that_are_known_to_be_cityscapes(tmp_path):
    for index in range(5):
        photo(tmp_path / f"wild/images/{index}.jpg")
        mask(tmp_path / f"wild/labels/{index}.png", 7, 26, 36)
    path = describe_folder(tmp_path / "wild", None, tmp_path / "conf", print, cityscapes=True)
    ids = yaml.safe_load(path.read_text())["folder"]["coding"]["ids"]
    assert (ids[7], ids[26], ids[3], ids[36], 35 in ids) == ("road", "car", "ignore", "ignore", False)


def test_folders_beside_train_and_val_are_targets_and_nothing_is_left_out_silently(tmp_path):
    root = tmp_path / "town"
    for split in ("train", "val", "night", "rain"):
        for number in range(3):
            photo(root / f"images/{split}/{number}.png")
            if split != "rain":
                mask(root / f"gt/{split}/{number}_ids.png", 0, 7)
    photo(root / "thumbs/0.png")
    config, opened, said = described(tmp_path, root)
    assert [t.split for t in config.data.targets] == ["night"]
    assert {name: len(d) for name, d in opened.scored.items()} == {"source_val": 3, "night": 3}
    assert "night: 3 images with masks (images/night/*.png, gt/night/*_ids.png)" in said
    assert "left out, being in no split: images 3 in images/rain/, 1 in thumbs/" in said


def test_images_and_masks_in_folders_of_each_split(tmp_path):
    for split in ("train", "valid", "night"):
        for number in range(3):
            photo(tmp_path / f"town/{split}/images/{number}.png")
            mask(tmp_path / f"town/{split}/labels/{number}.png", 0, 7)
    _, opened, said = described(tmp_path, tmp_path / "town")
    assert {name: len(d) for name, d in opened.scored.items()} == {"source_val": 3, "night": 3}
    assert "train: 3 images with masks (train/images/*.png, train/labels/*.png)" in said and "left out" not in said


def test_a_pipe_is_no_image(tmp_path):
    for name in ("a", "b"):
        photo(tmp_path / f"photos/{name}.jpg")
    os.mkfifo(tmp_path / "photos/c.jpg")
    assert find_kinds(tmp_path)[0][0].names[-1].path == "photos/b.jpg"


def test_stencils_drives_and_large_images(tmp_path):
    for drive in "abc":
        for frame in range(3):
            photo(tmp_path / f"big/photos/{drive}_{frame:04d}.jpg", (600, 700))
            mask(tmp_path / f"big/stencils/{drive}_{frame:04d}.png", 0, 255, size=(600, 700))
    config, opened, said = described(tmp_path, tmp_path / "big")
    assert config.data.classes.names == ["background", "foreground"]
    assert {*np.unique(opened.sources[0].load(0).label)} == {0, 1}  # 255 is a class here
    assert config.data.protocol.fit == {"folder": [352, 1056]} and "size=352" in said
    drives = [{item.image.name[0] for item in d.items} for d in opened.all]
    assert not drives[0] & drives[1] and set("abc") == drives[0] | drives[1]


def test_lists_and_test_images_without_masks(tmp_path):
    root = tmp_path / "voc"
    for index in range(6):
        photo(root / f"JPEGImages/{index:06d}.jpg")
        mask(root / f"SegmentationClass/{index:06d}.png", 0, 1)
    photo(root / "JPEGImages/000009.jpg")  # without a mask, and in no list
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name, lines in {"train": "000000\n000001\n000002\n000003", "val": "000004\n000005"}.items():
        (root / f"ImageSets/Segmentation/{name}.txt").write_text(lines)
    splits = {split.name: (split.list, len(split.pairs)) for split in recognise(root).splits}
    assert splits == {
        "train": ("ImageSets/Segmentation/train.txt", 4), "val": ("ImageSets/Segmentation/val.txt", 2),
    }  # fmt: skip
    make_own(tmp_path / "own", [0, 1], save_ids16, unlabelled=["test"])
    assert {s.name: s.masks for s in recognise(tmp_path / "own").splits}["test"] is None


def test_what_cannot_be_recognised_is_explained(tmp_path, monkeypatch, capsys):
    for index in range(3):
        photo(tmp_path / f"only/a{index}.jpg")
        photo(tmp_path / f"lossy/images/{index}.png")
        photo(tmp_path / f"lossy/masks/{index}.jpg")
        photo(tmp_path / f"strangers/images/x{index}.jpg")
        mask(tmp_path / f"strangers/masks/y{index}.png", 0, 1)
    (tmp_path / "empty").mkdir()
    for name, words in {
        "only": "3 images .* and no masks.*CVAT", "lossy": "looks like a mask but is a JPEG",
        "empty": "no images in it",
        "strangers": "their names do not belong together", "nowhere": "no such folder",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words):
            describe_folder(tmp_path / name, None, tmp_path / "conf", print)
    assert not (tmp_path / "conf").exists()
    monkeypatch.setattr(sys, "argv", ["init_data.py", str(tmp_path / "only")])
    with pytest.raises(SystemExit) as ended:
        init_data.main()
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("init-data: ")


def test_the_written_file_is_plain_yaml_with_remarks(tmp_path):
    make_own(tmp_path / "m y", [0, 1, 300], save_ids16, splits=["train", "val", "test"])
    path = describe_folder(tmp_path / "m y", None, tmp_path / "conf", lambda line: None)
    text = path.read_text()
    assert path.name == "m_y.yaml" and "% of the pixels" in text
    written = yaml.safe_load(text)
    assert written["folder"]["coding"]["ids"] == {0: 0, 1: 1, 300: 2}
    assert written["targets"] == [{"dataset": "folder", "split": "test", "name": "test"}]
