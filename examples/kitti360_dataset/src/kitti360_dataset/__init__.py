"""KITTI-360 (Liao et al., 2022): frames of eleven drives with masks in Cityscapes' ids, and some ids more."""

from recyclelora.data.datasets import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, paired
from recyclelora.data.labels import CITYSCAPES_IDS, lookup_table
from recyclelora.system.errors import UserError

KNOWN = 45
"""Ids 35 to 44, such as garages and trash bins, have no class in Cityscapes."""

DRIVE = r"data_2d_raw/([^/]+)/"


def kitti360(request: Request) -> FolderDataset:
    """``train`` or ``val``: the images and masks that the download's own lists name, one pair a line."""
    lines = f"data_2d_semantics/train/2013_05_28_drive_{request.split}_frames.txt"
    layout = f"{lines} and the images and masks that it names"
    folder = dataset_folder(request, "kitti360", ("train", "val"), layout)
    try:
        pairs = [line.split() for line in (folder / lines).read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{folder / lines}: cannot be read: {error.strerror}") from error
    masks = {folder / image: folder / mask for image, mask in pairs}
    items = paired(folder, [*masks], masks.__getitem__)
    return FolderDataset("kitti360", folder, items, lookup_table(CITYSCAPES_IDS, KNOWN), drive=DRIVE)
