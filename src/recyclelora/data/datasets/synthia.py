"""SYNTHIA-RAND-CITYSCAPES (Ros et al., 2016); not the sequences SYNTHIA-SEQ."""

from __future__ import annotations

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, held_out, paired
from recyclelora.data.labels import SYNTHIA_ABSENT, SYNTHIA_IDS, SYNTHIA_KNOWN, lookup_table
from recyclelora.data.masks import read_red16


def synthia(request: Request) -> FolderDataset:
    """16-bit RGB masks ``GT/LABELS/NNNNNNN.png``, id in the red channel, beside ``RGB/NNNNNNN.png``.

    ``all`` is every image; ``val`` a seeded draw of 500 and ``train`` the rest.
    """
    folder = dataset_folder(request, "synthia", ("train", "val", "all"), "RGB/*.png and GT/LABELS/*.png")
    items = paired(folder, found(folder, "RGB/*.png"), lambda image: folder / "GT" / "LABELS" / image.name)
    items = held_out(items, request.split, request.seed)
    table = lookup_table(SYNTHIA_IDS, SYNTHIA_KNOWN, size=1 << 16)
    return FolderDataset("synthia", folder, items, table, read_red16, SYNTHIA_ABSENT)
