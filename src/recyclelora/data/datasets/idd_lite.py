"""IDD-Lite (Mishra et al., 2019): small images of the India Driving Dataset with seven coarse classes."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import check_choice, existing, found, no_variant, paired, unlabelled
from recyclelora.data.labels import IDD_LITE_CLASSES, identity_table

DRIVE = r"([^/]+)/[^/]+$"
"""The folder."""


def idd_lite(request: Request) -> FolderDataset:
    """The splits ``train``, ``val`` and ``test``, which has no labels; images of 320 x 227."""
    check_choice("idd_lite has no split", request.split, ("train", "val", "test"))
    no_variant("idd_lite", request.variant)
    split = request.split
    layout = f"leftImg8bit/{split}/*/*_image.jpg and gtFine/{split}/*/*_label.png (the content of idd20k_lite)"
    folder = existing(request.root / "idd_lite", "idd_lite", layout)
    images = found(folder, f"leftImg8bit/{split}/*/*_image.jpg")

    def mask(image: Path) -> Path:
        return folder / "gtFine" / split / image.parent.name / f"{image.stem.removesuffix('_image')}_label.png"

    items = unlabelled(images) if split == "test" else paired(folder, images, mask)
    table = identity_table(len(IDD_LITE_CLASSES))
    return FolderDataset("idd_lite", folder, items, table, drive=DRIVE, class_names=IDD_LITE_CLASSES)
