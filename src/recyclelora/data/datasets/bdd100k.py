"""BDD100K, the 10k images with semantic labels (Yu et al., 2020)."""

from __future__ import annotations

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, paired, unlabelled
from recyclelora.data.datasets.upright import upright
from recyclelora.data.labels import identity_table

DRIVE = r"([0-9a-f]{8})-[0-9a-f]{8}\.jpg$"
"""The first half of a name."""


def bdd100k(request: Request) -> FolderDataset:
    """Masks of train ids in today's layout or in the older ``seg``; the split ``test`` has no public labels."""
    split = request.split
    layout = (
        f"images/10k/{split}/*.jpg and labels/sem_seg/masks/{split}/*.png, "
        f"or seg/images/{split}/*.jpg and seg/labels/{split}/*_train_id.png"
    )
    folder = dataset_folder(request, "bdd100k", ("train", "val", "test"), layout)
    old = not (folder / "images" / "10k").is_dir() and (folder / "seg").is_dir()
    images = found(folder, f"seg/images/{split}/*.jpg" if old else f"images/10k/{split}/*.jpg")
    masks = folder / ("seg/labels" if old else "labels/sem_seg/masks") / split
    ending = "_train_id.png" if old else ".png"
    items = unlabelled(images) if split == "test" else paired(folder, images, lambda i: masks / (i.stem + ending))
    items = upright(folder, items, request.orientation)
    return FolderDataset("bdd100k", folder, items, identity_table(19), drive=DRIVE)
