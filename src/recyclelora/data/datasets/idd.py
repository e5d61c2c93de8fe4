"""IDD, the India Driving Dataset (Varma et al., 2019), in its export to Cityscapes' train ids, and IDD-Lite (Mishra et
al., 2019), small images of it with seven coarse classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, paired, unlabelled
from recyclelora.data.datasets.upright import upright
from recyclelora.data.labels import CITYSCAPES_CLASSES, IDD_LITE_CLASSES, identity_table

DRIVE = r"([^/]+)/[^/]+$"
"""The folder."""


def idd(request: Request) -> FolderDataset:
    """IDD20K with ``*_gtFine_labelcsTrainIds.png``, which its own tools write (``--id-type csTrainId``)."""
    endings = ("_leftImg8bit.png", "_leftImg8bit.jpg")
    return _opened("idd", request, endings, "_gtFine_labelcsTrainIds.png", CITYSCAPES_CLASSES)


def idd_lite(request: Request) -> FolderDataset:
    """The content of ``idd20k_lite``: images of 320 x 227."""
    hint = " (the content of idd20k_lite)"
    return _opened("idd_lite", request, ("_image.jpg",), "_label.png", IDD_LITE_CLASSES, hint)


def _opened(
    name: str, request: Request, endings: Sequence[str], label_ending: str, classes: tuple[str, ...], hint: str = ""
) -> FolderDataset:
    """Images and masks by folder of the drive; those of the split ``test`` have no public labels."""
    split = request.split
    layout = f"leftImg8bit/{split}/*/*{endings[0]} and gtFine/{split}/*/*{label_ending}{hint}"
    folder = dataset_folder(request, name, ("train", "val", "test"), layout)
    images = found(folder, *(f"leftImg8bit/{split}/*/*{ending}" for ending in endings))

    def mask(image: Path) -> Path:
        stem = image.stem.removesuffix(Path(endings[0]).stem)
        return folder / "gtFine" / split / image.parent.name / f"{stem}{label_ending}"

    items = unlabelled(images) if split == "test" else paired(folder, images, mask)
    items = upright(folder, items, request.orientation)
    return FolderDataset(name, folder, items, identity_table(len(classes)), drive=DRIVE, class_names=classes)
