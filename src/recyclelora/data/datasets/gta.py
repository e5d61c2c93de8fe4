"""GTAV (Richter et al., "Playing for Data", 2016)."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Item, Request
from recyclelora.data.datasets.files import dataset_folder, found, held_out, paired
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, lookup_table
from recyclelora.system.errors import UserError

OFFICIAL = {"official_train": "trainIds", "official_val": "valIds", "official_test": "testIds"}
"""The official splits and their names in ``split.mat``: 12,403, 6,382 and 6,181 images."""


def gta(request: Request) -> FolderDataset:
    """Palette masks ``labels/NNNNN.png`` beside ``images/NNNNN.png``.

    ``all`` is every image; ``val`` a seeded draw of 500 and ``train`` the rest; ``official_train``, ``official_val``
    and ``official_test`` follow the ``split.mat`` of the download.
    """
    splits = ("train", "val", "all", *OFFICIAL)
    folder = dataset_folder(request, "gta", splits, "images/*.png and labels/*.png")
    items = paired(folder, found(folder, "images/*.png"), lambda image: folder / "labels" / image.name)
    if request.split in OFFICIAL:
        items = _official(folder, items, OFFICIAL[request.split])
    else:
        items = held_out(items, request.split, request.seed)
    return FolderDataset("gta", folder, items, lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN), nearly=True)


def _official(folder: Path, items: tuple[Item, ...], key: str) -> tuple[Item, ...]:
    """The images whose numbers ``split.mat`` lists under ``key``; it is among the dataset's downloads."""
    from scipy.io import loadmat  # only where it is asked for
    from scipy.io.matlab import MatReadError

    path = next((p for p in (folder / "split.mat", folder / "read_mapping" / "split.mat") if p.is_file()), None)
    if path is None:
        raise UserError(f"{folder.absolute()}: the official split needs split.mat of the download (read_mapping.zip)")
    try:
        numbers = {int(number) for number in loadmat(path)[key].ravel()}
    except (MatReadError, KeyError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise UserError(f"{path}: no list {key} of image numbers in it: {error}") from error
    chosen = tuple(item for item in items if item.image.stem.isdigit() and int(item.image.stem) in numbers)
    if len(chosen) < len(numbers):
        raise UserError(
            f"{folder.absolute()}: {len(numbers) - len(chosen)} of the {len(numbers)} images that split.mat lists "
            f"under {key} are not in images/"
        )
    return chosen
