"""Small datasets in the downloads' true layouts and encodings: ``make_<dataset>(root)`` writes ``root/<dataset>``.

Every maker returns ``root``. Images are pictures of their ids, so that there is something to learn.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from conftest import make_cityscapes, make_gta, picture, save_palette, save_rgb
from PIL import Image
from scipy.io import savemat

from recyclelora.data.datasets.camvid import COLOURS
from recyclelora.data.datasets.mapillary import VERSIONS

SIZE = (48, 96)


def blocks(rng: np.random.Generator, ids: Sequence[int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask (H, W) of rectangles with the given ids; every id occurs if there are at most 24."""
    coarse = rng.permutation(np.resize(np.asarray(ids), 24)).reshape(4, 6)
    return np.kron(coarse, np.ones((-(-size[0] // 4), -(-size[1] // 6)), int))[: size[0], : size[1]]


def save_jpeg(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def save_red16(path: Path, ids: np.ndarray, instances: np.ndarray | int = 0) -> None:
    """A 16-bit RGB PNG with ids in the red channel and instances in the green one, as SYNTHIA ships its labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blue = np.zeros(ids.shape, np.uint16)
    cv2.imwrite(
        str(path), np.stack([blue, np.broadcast_to(np.uint16(instances), ids.shape), ids.astype(np.uint16)], -1)
    )


def save_ids16(path: Path, ids: np.ndarray) -> None:
    """A 16-bit grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint16)).save(path)


def make_gta_split(root: Path, **numbers: Sequence[int]) -> Path:
    """GTAV's ``split.mat`` with trainIds, valIds and testIds as column vectors of doubles, as MATLAB writes them."""
    savemat(root / "gta" / "split.mat", {name: np.array(v, float)[:, None] for name, v in numbers.items()})
    return root


def make_synthia(root: Path, count: int = 12) -> Path:
    rng = np.random.default_rng(3)
    for index in range(count):
        ids = blocks(rng, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 17, 19, 21, 0, 13, 22])
        name = f"{index:07d}.png"
        save_rgb(root / "synthia/RGB" / name, picture(rng, ids))
        save_red16(root / "synthia/GT/LABELS" / name, ids, instances=300 + index)
        save_rgb(root / "synthia/GT/COLOR" / name, picture(rng, ids))
    return root


def make_urbansyn(root: Path, count: int = 12, *, equal_stems: bool = False) -> Path:
    rng = np.random.default_rng(4)
    for index in range(1, count + 1):
        ids = blocks(rng, range(20))
        image, mask = (f"{index:04d}",) * 2 if equal_stems else (f"rgb_{index:04d}", f"ss_{index:04d}")
        save_rgb(root / f"urbansyn/rgb/{image}.png", picture(rng, ids))
        save_rgb(root / f"urbansyn/ss/{mask}.png", ids.astype(np.uint8))
    return root


def make_bdd100k(root: Path, *, layout: str = "10k", split: str = "val", count: int = 2) -> Path:
    """``layout`` is "10k" or the older "seg"; beside each mask lies its colour picture."""
    rng = np.random.default_rng(5)
    folder = root / "bdd100k"
    for index in range(count):
        ids, stem = blocks(rng, [*range(19), 255]).astype(np.uint8), f"7d{index:06x}-{index:08x}"
        if layout == "10k":
            save_jpeg(folder / "images/10k" / split / f"{stem}.jpg", picture(rng, ids))
            save_rgb(folder / "labels/sem_seg/masks" / split / f"{stem}.png", ids)
            save_rgb(folder / "labels/sem_seg/colormaps" / split / f"{stem}.png", picture(rng, ids))
        else:
            save_jpeg(folder / "seg/images" / split / f"{stem}.jpg", picture(rng, ids))
            save_rgb(folder / "seg/labels" / split / f"{stem}_train_id.png", ids)
            save_rgb(folder / "seg/color_labels" / split / f"{stem}_train_color.png", picture(rng, ids))
    return root


def make_mapillary(
    root: Path, *, version: str = "v1.2", split: str = "validation", count: int = 2, versioned: bool = True
) -> Path:
    """Palette masks of one version and its configuration file; sizes are odd and differ; without ``versioned`` the
    older layout ``{split}/labels`` with ``config.json``."""
    rng = np.random.default_rng(6)
    names = VERSIONS[version].names
    for index in range(count):
        ids = blocks(rng, rng.permutation(len(names))[:24], (81 + 2 * index, 121))
        stem, folder = f"_{index:022d}", root / "mapillary" / split
        save_jpeg(folder / "images" / f"{stem}.jpg", picture(rng, ids))
        save_palette(folder / (f"{version}/labels" if versioned else "labels") / f"{stem}.png", ids)
    labels = [{"name": name, "readable": name.rsplit("--", 1)[-1], "evaluate": True} for name in names]
    config = root / "mapillary" / (f"config_{version}.json" if versioned else "config.json")
    config.write_text(json.dumps({"version": version, "labels": labels}))
    return root


def make_acdc(
    root: Path, *, split: str = "val", count: int = 1, conditions: Sequence[str] = ("fog", "night", "rain", "snow")
) -> Path:
    """With reference images and colour masks, which must not be picked up; ``test`` has no masks."""
    rng = np.random.default_rng(7)
    for number, condition in enumerate(conditions):
        run = f"GOPR{number:04d}"
        for index in range(count):
            ids, stem = blocks(rng, [*range(19), 255]).astype(np.uint8), f"{run}_frame_{index:06d}"
            inside = f"{condition}/{split}/{run}"
            save_rgb(root / f"acdc/rgb_anon/{inside}/{stem}_rgb_anon.png", picture(rng, ids))
            save_rgb(root / f"acdc/rgb_anon/{condition}/{split}_ref/{run}/{stem}_ref_anon.png", picture(rng, ids))
            if split != "test":
                save_rgb(root / f"acdc/gt/{inside}/{stem}_gt_labelTrainIds.png", ids)
                save_rgb(root / f"acdc/gt/{inside}/{stem}_gt_labelColor.png", picture(rng, ids))
    return root


def make_dark_zurich(root: Path, count: int = 2) -> Path:
    rng = np.random.default_rng(8)
    for index in range(count):
        ids, stem = blocks(rng, [*range(19), 255]).astype(np.uint8), f"GOPR0356_frame_{index:06d}"
        save_rgb(root / f"dark_zurich/rgb_anon/val/night/GOPR0356/{stem}_rgb_anon.png", picture(rng, ids))
        save_rgb(root / f"dark_zurich/gt/val/night/GOPR0356/{stem}_gt_labelTrainIds.png", ids)
    return root


def _from_cityscapes(root: Path, target: Callable[[str, str], list[str]]) -> Path:
    """Copies of Cityscapes' validation images under the paths that ``target`` gives for (city, stem)."""
    if not (root / "cityscapes/leftImg8bit/val").is_dir():
        make_cityscapes(root, 2, SIZE)
    for image in sorted((root / "cityscapes/leftImg8bit/val").glob("*/*.png")):
        for path in target(image.parent.name, image.stem):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, root / path)
    return root


def make_foggy_cityscapes(root: Path, folder: str = "foggy_cityscapes") -> Path:
    """All three densities; labels are those of Cityscapes."""
    return _from_cityscapes(root, lambda city, stem: [
        f"{folder}/leftImg8bit_foggy/val/{city}/{stem}_foggy_beta_{beta}.png" for beta in ("0.005", "0.01", "0.02")
    ])  # fmt: skip


RAINS = ("alpha_0.01_beta_0.005_dropsize_0.01_pattern_1", "alpha_0.03_beta_0.015_dropsize_0.002_pattern_12")


def make_rainy_cityscapes(root: Path, folder: str = "rainy_cityscapes") -> Path:
    return _from_cityscapes(root, lambda city, stem: [
        f"{folder}/leftImg8bit_rain/val/{city}/{stem}_rain_{rain}.png" for rain in RAINS
    ])  # fmt: skip


def make_cityscapes_c(root: Path, variants: Sequence[str] = ("fog/3",), inside: str = "") -> Path:
    """``inside`` is the folder that holds the corruptions, such as ``leftImg8bit/val/``."""
    return _from_cityscapes(root, lambda city, stem: [
        f"cityscapes_c/{inside}{variant}/{city}/{stem}.png" for variant in variants
    ])  # fmt: skip


def make_idd(root: Path, *, split: str = "val", count: int = 2) -> Path:
    """The second image is a JPEG, as those of the second part of IDD20K are."""
    rng = np.random.default_rng(9)
    for index in range(count):
        ids, stem = blocks(rng, [*range(19), 255]).astype(np.uint8), f"{index:03d}_frame{index:04d}"
        image = root / f"idd/leftImg8bit/{split}/201/{stem}_leftImg8bit"
        (save_jpeg if index % 2 else save_rgb)(image.with_suffix(".jpg" if index % 2 else ".png"), picture(rng, ids))
        save_rgb(root / f"idd/gtFine/{split}/201/{stem}_gtFine_labelcsTrainIds.png", ids)
    return root


def make_muses(root: Path, *, split: str = "val") -> Path:
    """One image for each weather by day and by night."""
    rng = np.random.default_rng(10)
    for number, weather in enumerate(("clear", "fog", "rain", "snow")):
        for time in ("day", "night"):
            ids, stem = blocks(rng, [*range(19), 255]).astype(np.uint8), f"REC{number:04d}_frame_{len(time):06d}"
            save_rgb(root / f"muses/frame_camera/{split}/{weather}/{time}/{stem}_frame_camera.png", picture(rng, ids))
            if split != "test":
                save_rgb(root / f"muses/gt_semantic/{split}/{weather}/{time}/{stem}_gt_labelTrainIds.png", ids)
                save_rgb(root / f"muses/gt_semantic/{split}/{weather}/{time}/{stem}_gt_labelIds.png", ids)
    return root


def make_own(
    root: Path,
    ids: Sequence[int],
    save_mask: Callable[[Path, np.ndarray], None],
    *,
    splits: Sequence[str] = ("train", "val", "test"),
    unlabelled: Sequence[str] = (),
    count: int = 3,
) -> Path:
    """A user's folder ``images/{split}/*.jpg`` with ``masks/{split}/*.png`` of the given stored ids."""
    rng = np.random.default_rng(11)
    for split in splits:
        for index in range(count):
            mask = blocks(rng, ids)
            save_jpeg(root / f"images/{split}/{index:03d}.jpg", picture(rng, mask % 256))
            if split not in unlabelled:
                save_mask(root / f"masks/{split}/{index:03d}.png", mask)
    return root


def make_everything(root: Path) -> Path:
    """All datasets that the shipped ``data`` options name, as small as they can be."""
    make_gta(root, 10, SIZE)
    make_synthia(root, 10)
    make_urbansyn(root, 10)
    make_cityscapes(root, 2, SIZE, "train")
    make_cityscapes(root, 1, SIZE)
    make_bdd100k(root, count=1)
    make_mapillary(root, count=1)
    make_camvid(root)
    make_idd_lite(root, split="train")
    make_idd_lite(root)
    make_wilddash(root)
    make_railsem19(root)
    return make_acdc(root)


CAMVID_FRAMES = {
    "train": ("0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_00901", "0016E5_08640"),
    "val": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}
"""Names of real frames at both ends of SegNet's splits."""


def make_camvid(root: Path, *, full: bool = False) -> Path:
    """SegNet's copies with ids, 11 for what has no class; or the ``full`` download, whose masks are painted."""
    rng = np.random.default_rng(11)
    palette = [bytes.fromhex(colour) for painted in COLOURS.values() for colour in painted] + [bytes(3)]
    for split, frames in CAMVID_FRAMES.items():
        for frame in frames:
            ids = blocks(rng, range(len(palette) if full else 12)).astype(np.uint8)
            image = f"701_StillsRaw_full/{frame}.png" if full else f"{split}/{frame}.png"
            save_rgb(root / "camvid" / image, picture(rng, ids))
            if full:
                colours = np.array([list(colour) for colour in palette], np.uint8)
                save_rgb(root / f"camvid/LabeledApproved_full/{frame}_L.png", colours[ids])
            else:
                save_rgb(root / f"camvid/{split}annot/{frame}.png", ids)
    return root


def make_wilddash(root: Path, *, count: int = 12) -> Path:
    """With Cityscapes' ids and WildDash's own from 34 on, and the instances, which must not be picked up."""
    rng = np.random.default_rng(13)
    for index in range(count):
        ids, stem = blocks(rng, [*range(39), 255]).astype(np.uint8), f"aa{index:04d}_100000"
        save_jpeg(root / f"wilddash/images/{stem}.jpg", picture(rng, ids))
        save_rgb(root / f"wilddash/labels/{stem}.png", ids)
        save_rgb(root / f"wilddash/instances/{stem}.png", ids)
    (root / "wilddash/wilddash_public.json").write_text("{}")
    return root


def make_railsem19(root: Path, *, count: int = 12) -> Path:
    """With the geometry of rails beside the masks."""
    rng = np.random.default_rng(14)
    for index in range(count):
        ids, stem = blocks(rng, [*range(19), 255]).astype(np.uint8), f"rs{index:05d}"
        save_jpeg(root / f"railsem19/jpgs/rs19_val/{stem}.jpg", picture(rng, ids))
        save_rgb(root / f"railsem19/uint8/rs19_val/{stem}.png", ids)
        (root / "railsem19/jsons/rs19_val").mkdir(parents=True, exist_ok=True)
        (root / f"railsem19/jsons/rs19_val/{stem}.json").write_text("{}")
    return root


def make_idd_lite(root: Path, *, split: str = "val", count: int = 2) -> Path:
    """With instances, which must not be picked up; names with and without ``frame``."""
    rng = np.random.default_rng(12)
    for index in range(count):
        ids = blocks(rng, [*range(7), 255]).astype(np.uint8)
        stem = f"{201 + index}/{'frame' * (index % 2)}{index:04d}"
        save_jpeg(root / f"idd_lite/leftImg8bit/{split}/{stem}_image.jpg", picture(rng, ids))
        save_rgb(root / f"idd_lite/gtFine/{split}/{stem}_label.png", ids)
        save_rgb(root / f"idd_lite/gtFine/{split}/{stem}_inst_label.png", ids)
    return root
