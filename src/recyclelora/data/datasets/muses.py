"""MUSES (Brödermann et al., 2024): the frame camera and its semantic labels."""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, paired, unlabelled
from recyclelora.data.labels import identity_table

WEATHERS = ("clear", "fog", "rain", "snow")
TIMES = ("day", "night")
VARIANTS = (*WEATHERS, *TIMES, *(f"{weather}/{time}" for weather in WEATHERS for time in TIMES))

DRIVE = r"(REC\d+)_"
"""The recording."""


def muses(request: Request) -> FolderDataset:
    """The variant is a weather, ``day``, ``night`` or both as in ``fog/night``; the split ``test`` has no labels."""
    split, variant = request.split, request.variant
    layout = f"frame_camera/{split}/*/*/*_frame_camera.png and gt_semantic/{split}/*/*/*_gt_labelTrainIds.png"
    folder = dataset_folder(request, "muses", ("train", "val", "test"), layout, VARIANTS)
    part = "*/*" if variant is None else f"*/{variant}" if variant in TIMES else f"{variant}/*"
    part = variant if variant and "/" in variant else part
    images = found(folder, f"frame_camera/{split}/{part}/*_frame_camera.png")

    def mask(image: Path) -> Path:
        inside = image.parent.relative_to(folder / "frame_camera")
        return folder / "gt_semantic" / inside / image.name.replace("_frame_camera.png", "_gt_labelTrainIds.png")

    items = unlabelled(images) if split == "test" else paired(folder, images, mask)
    return FolderDataset("muses", folder, items, identity_table(19), drive=DRIVE)
