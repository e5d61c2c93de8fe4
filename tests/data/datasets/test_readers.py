from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from conftest import make_cityscapes, make_gta, save_rgb
from fixture_data import (
    CAMVID_FRAMES,
    RAINS,
    make_acdc,
    make_bdd100k,
    make_camvid,
    make_cityscapes_c,
    make_dark_zurich,
    make_foggy_cityscapes,
    make_gta_split,
    make_idd,
    make_idd_lite,
    make_mapillary,
    make_muses,
    make_railsem19,
    make_rainy_cityscapes,
    make_synthia,
    make_urbansyn,
    make_wilddash,
)
from PIL import Image

from recyclelora.data.datasets import READERS, Subset, base, digest, open_dataset
from recyclelora.data.datasets.files import UnpairedFiles
from recyclelora.data.labels import CITYSCAPES_IDS, IGNORE, SYNTHIA_IDS
from recyclelora.system.errors import UserError

MAKERS = {
    "gta": (make_gta, "all", None, 12),
    "synthia": (make_synthia, "all", None, 12),
    "urbansyn": (make_urbansyn, "all", None, 12),
    "cityscapes": (make_cityscapes, "val", None, 3),
    "foggy_cityscapes": (make_foggy_cityscapes, "val", None, 2),
    "rainy_cityscapes": (make_rainy_cityscapes, "val", None, 4),
    "cityscapes_c": (make_cityscapes_c, "val", "fog/3", 2),
    "bdd100k": (make_bdd100k, "val", None, 2),
    "mapillary": (make_mapillary, "val", None, 2),
    "acdc": (make_acdc, "val", None, 4),
    "dark_zurich": (make_dark_zurich, "val", None, 2),
    "idd": (make_idd, "val", None, 2),
    "muses": (make_muses, "val", None, 8),
    "camvid": (make_camvid, "train", None, 5),
    "idd_lite": (make_idd_lite, "val", None, 2),
    "wilddash": (make_wilddash, "all", None, 12),
    "railsem19": (make_railsem19, "all", None, 12),
}
"""dataset -> (fixture, split, variant, images)"""


def test_every_reader_is_tested():
    assert MAKERS.keys() | {"kitti"} == READERS.keys()  # test_kitti.py


@pytest.mark.parametrize("dataset", MAKERS)
def test_reads_the_download_and_writes_nothing_beside_it(dataset, tmp_path: Path):
    make, split, variant, count = MAKERS[dataset]
    make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    opened = open_dataset(dataset, split, root=tmp_path, variant=variant)
    assert len(opened) == count and opened.name == dataset and opened.labelled
    sample = opened.load(0)
    assert sample.image.dtype == sample.label.dtype == np.uint8
    assert sample.image.shape == (*sample.label.shape, 3)
    assert set(np.unique(sample.label)) <= {*opened.classes, IGNORE}
    assert len(set(np.unique(sample.label))) > 3
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("dataset", MAKERS)
def test_a_symlinked_folder_is_the_same_data(dataset, tmp_path: Path):
    make, split, variant, _ = MAKERS[dataset]
    make(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    for folder in (tmp_path / "real").iterdir():
        (tmp_path / "linked" / folder.name).symlink_to(folder)
    real, linked = (open_dataset(dataset, split, root=tmp_path / r, variant=variant) for r in ("real", "linked"))
    assert digest([real]) == digest([linked])
    assert real.load(1).name == linked.load(1).name


@pytest.mark.parametrize("dataset", MAKERS)
def test_a_missing_folder_gives_the_layout_in_one_line(dataset, tmp_path: Path):
    _, split, variant, _ = MAKERS[dataset]
    with pytest.raises(UserError, match=rf"{dataset} is not at .*/{dataset}.*: expected .*as downloaded") as refusal:
        open_dataset(dataset, split, root=tmp_path, variant=variant)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("dataset", MAKERS)
def test_unpaired_images_are_counted_and_named(dataset, tmp_path: Path):
    make, split, variant, count = MAKERS[dataset]
    make(tmp_path)
    gone = open_dataset(dataset, split, root=tmp_path, variant=variant).items[-1]
    gone.label.unlink()
    with pytest.raises(UnpairedFiles, match=rf"\d of {count} images have no label: .*{gone.image.name}") as refusal:
        open_dataset(dataset, split, root=tmp_path, variant=variant)
    assert gone in refusal.value.unpaired and len(refusal.value.items) == count


@pytest.mark.parametrize("dataset", MAKERS)
def test_splits_and_variants_that_do_not_exist_are_refused(dataset, tmp_path: Path):
    make, split, variant, _ = MAKERS[dataset]
    make(tmp_path)
    with pytest.raises(UserError, match=f"{dataset} has no split 'valid'; it has: "):
        open_dataset(dataset, "valid", root=tmp_path, variant=variant)
    with pytest.raises(UserError, match=r"no variant|has no variants|no folder nothing/9|no image matches .*nothing/9"):
        open_dataset(dataset, split, root=tmp_path, variant="nothing/9")


def test_the_official_split_of_gta_follows_its_file(tmp_path: Path):
    make_gta(tmp_path, 6)
    with pytest.raises(UserError, match=r"official split needs split\.mat"):
        open_dataset("gta", "official_train", root=tmp_path)
    make_gta_split(tmp_path, trainIds=[2, 5, 6], valIds=[1], testIds=[3, 4, 99])
    names = {split: [item.image.stem for item in open_dataset("gta", split, root=tmp_path).items]
             for split in ("official_train", "official_val")}  # fmt: skip
    assert names == {"official_train": ["00002", "00005", "00006"], "official_val": ["00001"]}
    with pytest.raises(UserError, match=r"1 of the 3 images that split\.mat lists under testIds are not in images/"):
        open_dataset("gta", "official_test", root=tmp_path)
    (tmp_path / "gta/split.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"split\.mat: no list trainIds"):
        open_dataset("gta", "official_train", root=tmp_path)


def test_synthia_reads_ids_that_pillow_would_lose(tmp_path: Path):
    make_synthia(tmp_path, 2)
    dataset = open_dataset("synthia", "all", root=tmp_path)
    lost = np.asarray(Image.open(dataset.items[0].label).convert("RGB"))[..., 0]
    assert set(np.unique(lost)) == {0}
    held = set(np.unique(dataset.load(0).label)) - {IGNORE}
    assert held == set(SYNTHIA_IDS.values()) - {9, 14, 16} == dataset.classes
    assert len(held) == 16


def test_urbansyn_mirrors_with_equal_stems(tmp_path: Path):
    shipped = open_dataset("urbansyn", "all", root=make_urbansyn(tmp_path / "a"))
    mirror = open_dataset("urbansyn", "all", root=make_urbansyn(tmp_path / "b", equal_stems=True))
    np.testing.assert_array_equal(shipped.load(3).label, mirror.load(3).label)


@pytest.mark.parametrize("dataset", ["gta", "synthia", "urbansyn"])
def test_datasets_without_splits_hold_images_out(dataset, tmp_path: Path):
    MAKERS[dataset][0](tmp_path)
    parts = {s: {i.image for i in open_dataset(dataset, s, root=tmp_path).items} for s in ("train", "val", "all")}
    assert parts["train"] | parts["val"] == parts["all"] and not parts["train"] & parts["val"]
    assert len(parts["val"]) == 1


def test_both_layouts_of_bdd100k(tmp_path: Path):
    new = open_dataset("bdd100k", "val", root=make_bdd100k(tmp_path / "new"))
    old = open_dataset("bdd100k", "val", root=make_bdd100k(tmp_path / "old", layout="seg"))
    np.testing.assert_array_equal(new.load(1).label, old.load(1).label)
    assert old.items[0].label.name.endswith("_train_id.png")


@pytest.mark.parametrize("condition", ["fog", "night", "rain", "snow"])
def test_acdc_by_condition(condition, tmp_path: Path):
    dataset = open_dataset("acdc", "val", root=make_acdc(tmp_path, count=2), variant=condition)
    assert [f"/{condition}/val/" in str(item.image) for item in dataset.items] == [True, True]
    assert not [item for item in dataset.items if "_ref" in str(item.image)]


@pytest.mark.parametrize(
    ("dataset", "make"), [("acdc", make_acdc), ("muses", make_muses)], ids=lambda value: str(value)[:5]
)
def test_splits_with_hidden_labels_can_be_predicted(dataset, make, tmp_path: Path):
    opened = open_dataset(dataset, "test", root=make(tmp_path, split="test"))
    assert not opened.labelled and {item.label for item in opened.items} == {None}
    sample = opened.load(0)
    assert sample.label.shape == sample.image.shape[:2] and (sample.label == IGNORE).all()
    assert all("_rgb_anon.png" in e or "_frame_camera.png" in e for e in opened.entries())


def test_the_test_split_of_cityscapes_has_no_labels(tmp_path: Path):
    make_cityscapes(tmp_path, 2, split="test")
    assert not open_dataset("cityscapes", "test", root=tmp_path).labelled


def test_fog_densities_share_the_labels_of_cityscapes(tmp_path: Path):
    make_foggy_cityscapes(tmp_path)
    clear = open_dataset("cityscapes", "val", root=tmp_path)
    for beta in (None, "0.01", "0.005"):
        foggy = open_dataset("foggy_cityscapes", "val", root=tmp_path, variant=beta)
        assert [item.label for item in foggy.items] == [item.label for item in clear.items]
        assert all(item.image.name.endswith(f"_foggy_beta_{beta or '0.02'}.png") for item in foggy.items)


@pytest.mark.parametrize(("dataset", "make"), [("foggy", make_foggy_cityscapes), ("rainy", make_rainy_cityscapes)])
def test_weathers_are_also_found_inside_cityscapes(dataset, make, tmp_path: Path):
    apart = open_dataset(f"{dataset}_cityscapes", "val", root=make(tmp_path / "a"))
    inside = open_dataset(f"{dataset}_cityscapes", "val", root=make(tmp_path / "b", folder="cityscapes"))
    assert [i.image.name for i in apart.items] == [i.image.name for i in inside.items]


def test_one_rain_of_many(tmp_path: Path):
    dataset = open_dataset("rainy_cityscapes", "val", root=make_rainy_cityscapes(tmp_path), variant=RAINS[1])
    assert len(dataset) == 2 and all(item.image.stem.endswith(RAINS[1]) for item in dataset.items)


@pytest.mark.parametrize("inside", ["", "leftImg8bit/", "leftImg8bit/val/"])
def test_corruption_folders_of_cityscapes_c(inside, tmp_path: Path):
    make_cityscapes_c(tmp_path, ("fog/3", "fog/4", "snow/3"), inside)
    dataset = open_dataset("cityscapes_c", "val", root=tmp_path, variant="snow/3")
    assert len(dataset) == 2 and all("/snow/3/" in str(item.image) for item in dataset.items)
    with pytest.raises(UserError, match=r"no folder rain/3 in it"):
        open_dataset("cityscapes_c", "val", root=tmp_path, variant="rain/3")
    with pytest.raises(UserError, match=r"variant=<corruption>/<severity>"):
        open_dataset("cityscapes_c", "val", root=tmp_path)


@pytest.mark.parametrize(("variant", "count"), [("fog", 2), ("night", 4), ("snow/day", 1)])
def test_muses_by_weather_and_time(variant, count, tmp_path: Path):
    assert len(open_dataset("muses", "val", root=make_muses(tmp_path), variant=variant)) == count


def with_train_ids(root: Path) -> None:
    """The masks that cityscapesScripts draw from the polygons: here with one pixel that differs."""
    for path in (root / "cityscapes").rglob("*_labelIds.png"):
        trained = np.full(256, IGNORE, np.uint8)
        for stored, train in CITYSCAPES_IDS.items():
            trained[stored] = train
        mask = trained[np.asarray(Image.open(path))].copy()
        mask[0, 0] = 13
        save_rgb(path.with_name(path.name.replace("labelIds", "labelTrainIds")), mask)


@pytest.mark.parametrize(("dataset", "variant"), [("cityscapes", None), ("foggy_cityscapes", None)])
def test_the_kind_of_masks_that_is_preferred_is_read_where_both_are_there(dataset, variant, tmp_path: Path):
    make_foggy_cityscapes(tmp_path)

    def opened(preferred: str):
        return open_dataset(dataset, "val", root=tmp_path, variant=variant, cityscapes_labels=preferred)

    assert opened("labelTrainIds").masks == opened("labelIds").masks == "labelIds"
    assert digest([opened("labelTrainIds")]) == digest([opened("labelIds")])  # nothing has changed for this user
    with_train_ids(tmp_path)
    shipped, drawn = opened("labelIds"), opened("labelTrainIds")
    assert (shipped.masks, drawn.masks) == ("labelIds", "labelTrainIds")
    assert digest([shipped]) != digest([drawn])
    before, after = (d.load(0).label for d in (shipped, drawn))
    assert after[0, 0] == 13 and (before != after).sum() <= 1
    drawn.items[-1].label.unlink()  # generated for some only
    assert opened("labelTrainIds").masks == "labelIds"
    for path in (tmp_path / "cityscapes").rglob("*_labelIds.png"):
        path.unlink()
    with pytest.raises(UnpairedFiles, match=r"1 of 2 images have no label: .*_labelTrainIds"):
        opened("labelIds")


@pytest.mark.parametrize(
    ("dataset", "path", "drive"),
    [
        ("cityscapes", "leftImg8bit/val/frankfurt/frankfurt_000001_002512_leftImg8bit.png", "frankfurt_000001"),
        ("rainy_cityscapes", "x/val/lindau/lindau_000023_000019_leftImg8bit_rain_alpha_0.03.png", "lindau_000023"),
        ("acdc", "rgb_anon/fog/val/GOPR0476/GOPR0476_frame_000854_rgb_anon.png", "GOPR0476"),
        ("dark_zurich", "rgb_anon/val/night/GOPR0356/GOPR0356_frame_000321_rgb_anon.png", "GOPR0356"),
        ("idd", "leftImg8bit/val/119/903127_leftImg8bit.png", "119"),
        ("bdd100k", "images/10k/val/7d06fefd-f7be05a6.jpg", "7d06fefd"),
        ("muses", "frame_camera/val/fog/day/REC0006_frame_041538_frame_camera.png", "REC0006"),
        ("own", "test/0001TP_006690.png", "test/0001TP"),
        ("own", "Seq05VD_f00030.png", "Seq05VD"),
        ("own", "img12.png", "img12.png"),
    ],
)
def test_the_drive_of_a_frame_is_read_from_its_name(dataset: str, path: str, drive: str):
    """Names as the datasets ship them."""
    module = importlib.import_module(
        "recyclelora.data.datasets." + {"rainy_cityscapes": "cityscapes", "dark_zurich": "acdc"}.get(dataset, dataset)
    )
    assert base._drive(module.DRIVE, path) == drive


def test_drives_go_with_the_samples_of_a_subset(tmp_path: Path):
    whole = open_dataset("acdc", "val", root=make_acdc(tmp_path, count=2))
    found = whole.drives()
    assert found is not None and len(found) == len(whole)
    assert Subset(whole, (0, 2)).drives() == [found[0], found[2]]


@pytest.mark.parametrize("full", [False, True], ids=["segnet", "full"])
def test_camvid_has_segnets_splits_whichever_copy_is_there(tmp_path: Path, full: bool):
    make_camvid(tmp_path, full=full)
    for split, frames in CAMVID_FRAMES.items():
        opened = open_dataset("camvid", split, root=tmp_path)
        assert tuple(item.image.stem for item in opened.items) == frames
    dusk = open_dataset("camvid", "all", root=tmp_path, variant="0001TP")
    assert len(dusk) == 3 and set(dusk.drives()) == {"0001TP"}
    assert {item.image.name[:6] for item in dusk.items} == {"0001TP"}
    with pytest.raises(UserError, match="frames of Seq05VD in the split train"):
        open_dataset("camvid", "train", root=tmp_path, variant="Seq05VD")


def test_camvids_colours_are_gathered_to_the_eleven_classes_of_its_copies(tmp_path: Path):
    make_camvid(tmp_path / "full", full=True)
    opened = open_dataset("camvid", "all", root=tmp_path / "full")
    item = opened.items[0]
    painted, label = np.asarray(Image.open(item.label)), opened.load(0).label
    # by hand, from the dataset's label_colors.txt
    for colour, name in {
        (128, 128, 128): "sky", (64, 192, 0): "building", (0, 0, 64): "pole", (128, 0, 192): "road",
        (64, 192, 128): "sidewalk", (192, 192, 0): "vegetation", (0, 64, 64): "sign", (64, 64, 128): "fence",
        (192, 128, 192): "car", (192, 128, 64): "person", (192, 0, 192): "bicyclist",
    }.items():  # fmt: skip
        here = (painted == colour).all(-1)
        assert not here.any() or set(label[here]) == {opened.class_names.index(name)}, name
    assert set(label[(painted == 0).all(-1)]) <= {IGNORE}
