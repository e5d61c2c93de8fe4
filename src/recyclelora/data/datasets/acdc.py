"""ACDC (Sakaridis et al., 2021) and Dark Zurich (Sakaridis et al., 2019), which share one layout."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import check_choice, existing, found, no_variant, paired, unlabelled
from recyclelora.data.labels import identity_table

DRIVE = r"([^/]+)/[^/]+$"
"""The folder: a film of the camera."""

CONDITIONS = ("fog", "night", "rain", "snow")


def acdc(request: Request) -> FolderDataset:
    """The variant is a condition, by default all four; the split ``test`` has no public labels.

    The reference images in ``{split}_ref`` folders, which have no labels, are not part of any split.
    """
    check_choice("acdc has no split", request.split, ("train", "val", "test"))
    if request.variant is not None:
        check_choice("acdc has no variant", request.variant, CONDITIONS)
    conditions = (request.variant,) if request.variant else CONDITIONS
    return _open("acdc", request, conditions, labelled=request.split != "test")


def dark_zurich(request: Request) -> FolderDataset:
    """The 50 labelled night images of the validation split, or the unlabelled ``test``."""
    check_choice("dark_zurich has no split", request.split, ("val", "test"))
    no_variant("dark_zurich", request.variant)
    return _open("dark_zurich", request, ("night",), labelled=request.split != "test")


def _open(name: str, request: Request, conditions: tuple[str, ...], *, labelled: bool) -> FolderDataset:
    """ACDC orders its folders condition/split, Dark Zurich split/condition."""
    parts = [f"{c}/{request.split}" if name == "acdc" else f"{request.split}/{c}" for c in conditions]
    layout = f"rgb_anon/{parts[0]}/*/*_rgb_anon.png and gt/{parts[0]}/*/*_gt_labelTrainIds.png"
    folder = existing(request.root / name, name, layout)
    images = [image for part in parts for image in found(folder, f"rgb_anon/{part}/*/*_rgb_anon.png")]

    def mask(image: Path) -> Path:
        inside = image.parent.relative_to(folder / "rgb_anon")
        return folder / "gt" / inside / image.name.replace("_rgb_anon.png", "_gt_labelTrainIds.png")

    items = paired(folder, images, mask) if labelled else unlabelled(images)
    return FolderDataset(name, folder, items, identity_table(19), drive=DRIVE)
