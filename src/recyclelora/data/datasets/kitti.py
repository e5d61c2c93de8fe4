"""KITTI's semantic benchmark (Alhaija et al., 2018): 200 images with masks in Cityscapes' ids, 200 without."""

from __future__ import annotations

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, held_out, paired, unlabelled
from recyclelora.data.labels import CITYSCAPES_IDS, CITYSCAPES_KNOWN, lookup_table


def kitti(request: Request) -> FolderDataset:
    """``train``, ``val`` (a seeded tenth) or ``all`` of the images with masks; ``test`` are those without."""
    layout = "training/image_2/*.png and training/semantic/*.png"
    folder = dataset_folder(request, "kitti", ("train", "val", "all", "test"), layout)
    if request.split == "test":
        items = unlabelled(found(folder, "testing/image_2/*.png"))
    else:
        images = found(folder, "training/image_2/*.png")
        items = paired(folder, images, lambda image: folder / "training/semantic" / image.name)
        items = held_out(items, request.split, request.seed)
    return FolderDataset("kitti", folder, items, lookup_table(CITYSCAPES_IDS, CITYSCAPES_KNOWN))
