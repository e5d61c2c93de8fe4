"""Cityscapes (Cordts et al., 2016) and what was made from it: fog, rain and corruptions with Cityscapes' labels."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import check_choice, dataset_folder, existing, found, not_there, paired, unlabelled
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, identity_table, lookup_table
from recyclelora.system.errors import UserError

SPLITS = ("train", "val")
BETAS = ("0.02", "0.01", "0.005")
"""Fog densities; the densest is the default."""

SHIPPED, GENERATED = "labelIds", "labelTrainIds"
"""The masks of the download, and those that cityscapesScripts draw from its polygons and that published figures use.

They are not the same masks with other numbers: polygons of classes that do not count are not drawn, so that what lies
below them is labelled. 0.38 % of the pixels of the validation set differ."""

DRIVE = r"([a-z-]+_\d{6})_\d{6}_leftImg8bit[^/]*$"
"""City and sequence; the last number is the frame's."""

LABELS = {SHIPPED: lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN), GENERATED: identity_table(19)}


def cityscapes(request: Request) -> FolderDataset:
    """``leftImg8bit/{split}/{city}`` with ``gtFine``; the split ``test`` has no public labels."""
    split = request.split
    layout = f"leftImg8bit/{split}/*/*_leftImg8bit.png and gtFine/{split}/*/*_labelIds.png"
    folder = dataset_folder(request, "cityscapes", (*SPLITS, "test"), layout)
    images = found(folder, f"leftImg8bit/{split}/*/*_leftImg8bit.png")
    if split == "test":
        return FolderDataset("cityscapes", folder, unlabelled(images), LABELS[SHIPPED])
    return _with_fine_labels("cityscapes", folder, images, folder / "gtFine" / split, request.cityscapes_labels)


def foggy_cityscapes(request: Request) -> FolderDataset:
    """Foggy Cityscapes (Sakaridis et al., 2018); the variant is its beta: 0.02 (default), 0.01 or 0.005."""
    beta = request.variant or BETAS[0]
    check_choice("foggy_cityscapes has no variant", beta, BETAS)
    return _weather(request, "foggy", f"_leftImg8bit_foggy_beta_{beta}.png")


def rainy_cityscapes(request: Request) -> FolderDataset:
    """RainCityscapes (Hu et al., 2019); the variant is the end of a file name, such as
    ``alpha_0.03_beta_0.015_dropsize_0.002_pattern_12``; by default all rains.
    """
    end = f"*{request.variant}.png" if request.variant else "*.png"
    return _weather(request, "rainy", f"_leftImg8bit_rain{end}")


def _weather(request: Request, kind: str, ending: str) -> FolderDataset:
    """Images of one weather, found in a folder of their own or where Cityscapes' own archives put them."""
    name, split = f"{kind}_cityscapes", request.split
    check_choice(f"{name} has no split", split, SPLITS)
    inside = {"foggy": "leftImg8bit_foggy", "rainy": "leftImg8bit_rain"}[kind]
    layout = f"{inside}/{split}/*/*{ending} (labels are read from cityscapes/gtFine)"
    own = request.root / name
    folder = own if own.is_dir() else request.root / "cityscapes"
    if not (folder / inside).is_dir():
        raise not_there(own, name, layout)
    images = found(folder, f"{inside}/{split}/*/*{ending}")
    labels = _fine_labels(request.root, own, split)
    return _with_fine_labels(name, request.root, images, labels, request.cityscapes_labels)


def cityscapes_c(request: Request) -> FolderDataset:
    """Cityscapes-C: corrupted copies of the validation images; the variant is ``<corruption>/<severity>``.

    The folders ``<corruption>/<severity>`` lie in ``cityscapes_c`` or up to two folders deeper.
    """
    check_choice("cityscapes_c has no split", request.split, ("val",))
    own = existing(request.root / "cityscapes_c", "cityscapes_c", "<corruption>/<severity>/ with *_leftImg8bit.png")
    if request.variant is None or request.variant.count("/") != 1:
        raise UserError(f"cityscapes_c needs variant=<corruption>/<severity>, such as fog/3, not {request.variant!r}")
    folders = [p for depth in ("", "*/", "*/*/") for p in own.glob(depth + request.variant) if p.is_dir()]
    if not folders:
        raise UserError(f"{own.absolute()}: no folder {request.variant} in it")
    images = found(folders[0], "*_leftImg8bit.png", "*/*_leftImg8bit.png", "*/*/*_leftImg8bit.png")
    labels = _fine_labels(request.root, own, "val")
    return _with_fine_labels("cityscapes_c", request.root, images, labels, request.cityscapes_labels)


def _fine_labels(root: Path, own: Path, split: str) -> Path:
    """The labels of a split: beside the images where a download brings them along, else Cityscapes' own."""
    beside = own / "gtFine" / split
    return beside if beside.is_dir() else existing(root / "cityscapes" / "gtFine" / split, "gtFine", "*/*_labelIds.png")


def _with_fine_labels(name: str, root: Path, images: list[Path], labels: Path, preferred: str) -> FolderDataset:
    """Pair images with the preferred kind of masks, or with the other one where only that is complete."""

    def mask(image: Path, kind: str) -> Path:
        stem = image.name.partition("_leftImg8bit")[0]
        return labels / stem.partition("_")[0] / f"{stem}_gtFine_{kind}.png"

    def complete(kind: str) -> bool:
        return all(mask(image, kind).is_file() for image in images)

    kinds = sorted(LABELS, key=lambda kind: kind != preferred)
    # a set without either is refused with the kind that its first image has, or that Cityscapes ships
    begun = [kind for kind in (SHIPPED, GENERATED) if mask(images[0], kind).is_file()]
    kind = next((kind for kind in kinds if complete(kind)), (begun or [SHIPPED])[0])
    items = paired(root, images, lambda image: mask(image, kind))
    return FolderDataset(name, root, items, LABELS[kind], masks=kind, drive=DRIVE)
