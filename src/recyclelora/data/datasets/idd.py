"""IDD, the India Driving Dataset (Varma et al., 2019), in its export to Cityscapes' train ids."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import check_choice, existing, found, no_variant, paired, unlabelled
from recyclelora.data.datasets.upright import upright
from recyclelora.data.labels import identity_table

DRIVE = r"([^/]+)/[^/]+$"
"""The folder."""


def idd(request: Request) -> FolderDataset:
    """IDD20K with ``*_gtFine_labelcsTrainIds.png``, which its own tools write (``--id-type csTrainId``)."""
    check_choice("idd has no split", request.split, ("train", "val", "test"))
    no_variant("idd", request.variant)
    split = request.split
    layout = f"leftImg8bit/{split}/*/*_leftImg8bit.png and gtFine/{split}/*/*_gtFine_labelcsTrainIds.png"
    folder = existing(request.root / "idd", "idd", layout)
    images = found(folder, *(f"leftImg8bit/{split}/*/*_leftImg8bit.{suffix}" for suffix in ("png", "jpg")))

    def mask(image: Path) -> Path:
        stem = image.stem.removesuffix("_leftImg8bit")
        return folder / "gtFine" / split / image.parent.name / f"{stem}_gtFine_labelcsTrainIds.png"

    items = unlabelled(images) if split == "test" else paired(folder, images, mask)
    items = upright(folder, items, request.orientation)
    return FolderDataset("idd", folder, items, identity_table(19), drive=DRIVE)
