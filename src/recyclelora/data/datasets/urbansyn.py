"""UrbanSyn (Gómez et al., 2023)."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, held_out, paired
from recyclelora.data.labels import URBANSYN_KNOWN, identity_table


def urbansyn(request: Request) -> FolderDataset:
    """Masks of train ids with 19 for void: ``ss/ss_NNNN.png`` for ``rgb/rgb_NNNN.png``, or equal names in mirrors.

    ``all`` is every image; ``val`` a seeded draw of 500 and ``train`` the rest.
    """
    folder = dataset_folder(request, "urbansyn", ("train", "val", "all"), "rgb/*.png and ss/*.png")

    def mask(image: Path) -> Path:
        equal = folder / "ss" / image.name
        return equal if equal.is_file() else folder / "ss" / image.name.replace("rgb_", "ss_", 1)

    items = held_out(paired(folder, found(folder, "rgb/*.png"), mask), request.split, request.seed)
    return FolderDataset("urbansyn", folder, items, identity_table(19, URBANSYN_KNOWN))
