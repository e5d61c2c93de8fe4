from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import make_cityscapes, make_gta, save_palette, save_rgb
from PIL import Image

from recyclelora.data.datasets import digest, open_dataset, seeded_subset
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, IGNORE, UNKNOWN, identity_table, lookup_table
from recyclelora.data.reading import fit_label, read_image
from recyclelora.system.errors import UserError


def test_cityscapes_table_is_the_published_one():
    table = lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN)
    published = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13,
                 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
    assert {i: int(table[i]) for i in range(256) if table[i] < IGNORE - 1} == published
    assert {i for i in range(256) if table[i] == IGNORE} == (set(range(35)) - published.keys()) | {255}
    assert all(table[i] == UNKNOWN for i in range(35, 255))


def test_gta_labels_are_palette_indices(gta2city: Path):
    dataset = open_dataset("gta", "all", root=gta2city)
    assert len(dataset) == 12
    sample = dataset.load(0)
    stored = np.asarray(Image.open(gta2city / "gta/labels/00001.png"))
    assert stored.ndim == 2  # the fixture is a palette image, whose indices are the label ids
    expected = np.vectorize(lambda i: CITYSCAPES_IDS.get(int(i), IGNORE))(stored)
    np.testing.assert_array_equal(sample.label, expected)
    assert sample.image.shape == (96, 192, 3)
    assert sample.name == "images/00001.png"


def test_label_of_another_size_is_fitted_not_resized(gta2city: Path):
    sample = open_dataset("gta", "all", root=gta2city).load(1)
    assert sample.label.shape == sample.image.shape[:2]
    np.testing.assert_array_equal(fit_label(np.zeros((2, 5), np.uint8), (3, 4)), [[0] * 4, [0] * 4, [IGNORE] * 4])


def test_a_mask_of_quite_another_size_is_refused(tmp_path: Path):
    make_gta(tmp_path, 1)
    save_rgb(tmp_path / "gta/images/00001.png", np.zeros((48, 96, 3), np.uint8))
    with pytest.raises(UserError, match=r"00001\.png: 192x96 pixels, but its image has 96x48"):
        open_dataset("gta", "all", root=tmp_path).load(0)


def test_gta_train_and_val_are_a_seeded_partition(gta2city: Path):
    names = {
        split: {item.image.name for item in open_dataset("gta", split, root=gta2city, seed=0).items}
        for split in ("train", "val", "all")
    }
    assert names["train"] | names["val"] == names["all"]
    assert not names["train"] & names["val"]
    assert len(names["val"]) == 1
    again = open_dataset("gta", "val", root=gta2city, seed=0)
    assert {item.image.name for item in again.items} == names["val"]


def test_cityscapes_reads_label_ids(gta2city: Path):
    dataset = open_dataset("cityscapes", "val", root=gta2city)
    assert len(dataset) == 3
    assert set(np.unique(dataset.load(0).label)) <= {*range(19), IGNORE}


def test_cityscapes_accepts_generated_train_ids(tmp_path: Path):
    make_cityscapes(tmp_path, 1)
    (ids,) = (tmp_path / "cityscapes").rglob("*_labelIds.png")
    label = open_dataset("cityscapes", "val", root=tmp_path).load(0).label
    save_rgb(ids.with_name(ids.name.replace("labelIds", "labelTrainIds")), label)
    ids.unlink()
    np.testing.assert_array_equal(open_dataset("cityscapes", "val", root=tmp_path).load(0).label, label)


def test_unknown_ids_are_refused_with_file_and_ids(tmp_path: Path):
    make_gta(tmp_path, 1)
    save_palette(tmp_path / "gta/labels/00001.png", np.full((96, 192), 77))
    with pytest.raises(UserError, match=r"00001\.png.*\[77\]"):
        open_dataset("gta", "all", root=tmp_path).load(0)


def test_a_16_bit_or_colour_mask_is_refused(tmp_path: Path):
    make_cityscapes(tmp_path, 1)
    (path,) = (tmp_path / "cityscapes").rglob("*_labelIds.png")
    Image.fromarray(np.full((96, 192), 7, np.uint16)).save(path)
    with pytest.raises(UserError, match="8-bit"):
        open_dataset("cityscapes", "val", root=tmp_path).load(0)
    save_rgb(path, np.zeros((96, 192, 3), np.uint8))
    with pytest.raises(UserError, match="RGB"):
        open_dataset("cityscapes", "val", root=tmp_path).load(0)


@pytest.mark.parametrize("kind", ["image", "label"])
def test_truncated_png_is_refused(tmp_path: Path, kind: str):
    make_gta(tmp_path, 1)
    path = tmp_path / "gta" / f"{kind}s" / "00001.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"00001\.png"):
        open_dataset("gta", "all", root=tmp_path).load(0)


def test_image_is_rgb(tmp_path: Path):
    save_rgb(tmp_path / "a.png", np.full((2, 2, 3), (250, 100, 5), np.uint8))
    assert read_image(tmp_path / "a.png")[0, 0].tolist() == [250, 100, 5]


def test_missing_labels_and_folders_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gta is not at .*/gta: expected images/"):
        open_dataset("gta", "all", root=tmp_path)
    make_gta(tmp_path, 3)
    (tmp_path / "gta/labels/00003.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 images have no label.*images/00003\.png"):
        open_dataset("gta", "all", root=tmp_path)
    with pytest.raises(UserError, match="no split 'test'; it has: train, val, all"):
        open_dataset("gta", "test", root=tmp_path)
    with pytest.raises(UserError, match="unknown dataset 'gtav'"):
        open_dataset("gtav", "all", root=tmp_path)


def test_digest_follows_names_and_sizes(gta2city: Path):
    before = digest([open_dataset("gta", "all", root=gta2city)])
    assert before == digest([open_dataset("gta", "all", root=gta2city)])
    image = gta2city / "gta/images/00004.png"
    image.write_bytes(image.read_bytes() + b"\0")
    assert before != digest([open_dataset("gta", "all", root=gta2city)])


def test_subsets_are_seeded_and_part_of_the_digest(gta2city: Path):
    whole = open_dataset("gta", "all", root=gta2city)
    five = seeded_subset(whole, 5, seed=0)
    assert len(five) == 5
    assert five.indices == seeded_subset(whole, 5, seed=0).indices != seeded_subset(whole, 5, seed=1).indices
    assert five.load(0).name == whole.load(five.indices[0]).name
    assert digest([five]) != digest([whole])
    assert seeded_subset(whole, 12, seed=0) is whole


def test_identity_table_keeps_train_ids():
    assert identity_table(19)[[0, 18, 255]].tolist() == [0, 18, 255]
    assert identity_table(19)[19] == UNKNOWN


def test_only_gta_may_differ_by_some_rows(tmp_path: Path):
    """Elsewhere a mask of nearly the image's size is a resized one: KITTI's pairs of 1224x370 and 1242x375."""
    save_palette(tmp_path / "gta/labels/00001.png", np.full((52, 96), 7))
    save_rgb(tmp_path / "gta/images/00001.png", np.zeros((48, 96, 3), np.uint8))
    assert open_dataset("gta", "all", root=tmp_path).load(0).label.shape == (48, 96)
    make_cityscapes(tmp_path, 1)
    (mask,), (image,) = ((tmp_path / "cityscapes").rglob(f"*_{kind}.png") for kind in ("labelIds", "leftImg8bit"))
    for (height, width), (high, wide), cause in [
        ((375, 1242), (370, 1224), "one of them was resized"),
        ((96, 192), (88, 192), "resized, cropped or padded"),
        ((96, 192), (192, 96), "turned by 90 degrees"),
        ((96, 192), (30, 30), "not its mask"),
    ]:
        save_rgb(image, np.zeros((height, width, 3), np.uint8))
        save_rgb(mask, np.full((high, wide), 7, np.uint8))
        with pytest.raises(UserError, match=f"{wide}x{high} pixels, but its image has {width}x{height}: .*{cause}"):
            open_dataset("cityscapes", "val", root=tmp_path).load(0)
