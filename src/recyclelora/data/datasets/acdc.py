"""ACDC (Sakaridis et al., 2021) and Dark Zurich (Sakaridis et al., 2019), which share one layout."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, paired, unlabelled
from recyclelora.data.labels import identity_table

DRIVE = r"([^/]+)/[^/]+$"
"""The folder: a film of the camera."""

CONDITIONS = ("fog", "night", "rain", "snow")


def acdc(request: Request) -> FolderDataset:
    """The variant is a condition, by default all four; the split ``test`` has no public labels.

    The reference images in ``{split}_ref`` folders, which have no labels, are not part of any split.
    """
    return _open("acdc", request, ("train", "val", "test"), CONDITIONS)


def dark_zurich(request: Request) -> FolderDataset:
    """The 50 labelled night images of the validation split, or the unlabelled ``test``."""
    return _open("dark_zurich", request, ("val", "test"), ())


def _open(name: str, request: Request, splits: tuple[str, ...], variants: tuple[str, ...]) -> FolderDataset:
    """ACDC orders its folders condition/split, Dark Zurich, which is night alone, split/condition."""
    conditions = (request.variant,) if request.variant else variants or ("night",)
    parts = [f"{c}/{request.split}" if name == "acdc" else f"{request.split}/{c}" for c in conditions]
    layout = f"rgb_anon/{parts[0]}/*/*_rgb_anon.png and gt/{parts[0]}/*/*_gt_labelTrainIds.png"
    folder = dataset_folder(request, name, splits, layout, variants)
    images = [image for part in parts for image in found(folder, f"rgb_anon/{part}/*/*_rgb_anon.png")]

    def mask(image: Path) -> Path:
        inside = image.parent.relative_to(folder / "rgb_anon")
        return folder / "gt" / inside / image.name.replace("_rgb_anon.png", "_gt_labelTrainIds.png")

    items = paired(folder, images, mask) if request.split != "test" else unlabelled(images)
    return FolderDataset(name, folder, items, identity_table(19), drive=DRIVE)
