"""WildDash 2 (Zendel et al., 2022) and RailSem19 (Zendel et al., 2019), both from wilddash.cc."""

from __future__ import annotations

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, held_out, paired
from recyclelora.data.labels import RAILSEM_IDS, RAILSEM_KNOWN, WILDDASH_IDS, WILDDASH_KNOWN, lookup_table

SPLITS = ("train", "val", "all")
"""Neither has official ones of its images with masks."""


def wilddash(request: Request) -> FolderDataset:
    """The content of ``wd_public_02``: 4,256 images, each of a drive of its own."""
    folder = dataset_folder(request, "wilddash", SPLITS, "images/*.jpg and labels/*.png (the content of wd_public_02)")
    images = found(folder, "images/*.jpg")
    items = paired(folder, images, lambda image: folder / "labels" / f"{image.stem}.png")
    items = held_out(items, request.split, request.seed)
    return FolderDataset("wilddash", folder, items, lookup_table(WILDDASH_IDS, WILDDASH_KNOWN))


def railsem19(request: Request) -> FolderDataset:
    """The content of ``rs19_val``: 8,500 images from trains and trams."""
    layout = "jpgs/rs19_val/*.jpg and uint8/rs19_val/*.png (the content of rs19_val)"
    folder = dataset_folder(request, "railsem19", SPLITS, layout)
    images = found(folder, "jpgs/rs19_val/*.jpg")
    items = paired(folder, images, lambda image: folder / "uint8/rs19_val" / f"{image.stem}.png")
    items = held_out(items, request.split, request.seed)
    return FolderDataset("railsem19", folder, items, lookup_table(RAILSEM_IDS, RAILSEM_KNOWN))
