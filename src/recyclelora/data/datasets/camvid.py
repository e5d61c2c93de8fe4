"""CamVid (Brostow, Fauqueur and Cipolla, 2009): frames of four drives, three by day and one at dusk."""

from __future__ import annotations

import re
from pathlib import Path

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import check_choice, found, not_there, paired
from recyclelora.data.labels import CAMVID_CLASSES, IGNORE, identity_table
from recyclelora.data.masks import ColourIds

SPLITS = ("train", "val", "test")
FULL = "701_StillsRaw_full"
DRIVES = ("0001TP", "0006R0", "0016E5", "Seq05VD")
FRAME = re.compile(rf"({'|'.join(DRIVES)})_f?(\d+)")
DRIVE = r"([^/]+)_f?\d+\.png$"

COLOURS = {
    "sky": ("808080",),  # Sky
    "building": ("800000", "008040", "40c000", "400040", "c00080"),  # Building, Bridge, Wall, Tunnel, Archway
    "pole": ("c0c080", "000040"),  # Column_Pole, TrafficCone
    "road": ("804080", "8000c0", "c00040"),  # Road, LaneMkgsDriv, LaneMkgsNonDriv
    "sidewalk": ("0000c0", "40c080", "8080c0"),  # Sidewalk, ParkingBlock, RoadShoulder
    "vegetation": ("808000", "c0c000"),  # Tree, VegetationMisc
    "sign": ("c08080", "808040", "004040"),  # SignSymbol, Misc_Text, TrafficLight
    "fence": ("404080",),  # Fence
    "car": ("400080", "4080c0", "c080c0", "c04080", "804040"),  # Car, SUVPickupTruck, Truck_Bus, Train, OtherMoving
    "person": ("404000", "c08040", "4000c0", "408040"),  # Pedestrian, Child, CartLuggagePram, Animal
    "bicyclist": ("0080c0", "c000c0"),  # Bicyclist, MotorcycleScooter
}
"""The 31 colours of the full-size masks, gathered to SegNet's classes as Sturgess et al. (2009) do."""


def camvid(request: Request) -> FolderDataset:
    """SegNet's split (``train``, ``val``, ``test``) or ``all``; the variant is one of the four drives.

    Read are SegNet's copies of 480 x 360 (``train/`` and ``trainannot/``, ...) or the full-size download, of which the
    same frames belong to each split.
    """
    check_choice("camvid has no split", request.split, (*SPLITS, "all"))
    if request.variant is not None:
        check_choice("camvid has no variant", request.variant, DRIVES)
    folder = request.root / "camvid"
    small, full = (folder / "train").is_dir(), (folder / FULL).is_dir()
    if not (small or full):
        layout = (
            "train/*.png and trainannot/*.png, val, test alike (SegNet's copies), "
            "or 701_StillsRaw_full/*.png and LabeledApproved_full/*_L.png"
        )
        raise not_there(folder, "camvid", layout)
    images = found(folder, *(f"{part}/{request.variant or ''}*.png" for part in (SPLITS if small else [FULL])))
    images = [image for image in images if request.split in ("all", image.parent.name if small else split_of(image))]
    if not images:
        raise not_there(folder, "camvid", f"frames of {request.variant} in the split {request.split}")
    if small:
        items = paired(folder, images, lambda i: folder / f"{i.parent.name}annot" / i.name)
        table = identity_table(len(CAMVID_CLASSES), len(CAMVID_CLASSES) + 1)  # 11 is what has no class
        return FolderDataset("camvid", folder, items, table, drive=DRIVE, class_names=CAMVID_CLASSES)
    items = paired(folder, images, lambda i: folder / "LabeledApproved_full" / f"{i.stem}_L.png")
    colours = [((0, 0, 0), IGNORE)]
    for name, painted in COLOURS.items():
        colours += [(_rgb(colour), CAMVID_CLASSES.index(name)) for colour in painted]
    table = identity_table(len(CAMVID_CLASSES))
    return FolderDataset(
        "camvid", folder, items, table, ColourIds(tuple(sorted(colours))), drive=DRIVE, class_names=CAMVID_CLASSES
    )


def split_of(image: Path) -> str:
    """Which of SegNet's splits holds a frame; they go by drive and number."""
    match = FRAME.match(image.name)
    if match is None:
        return ""
    drive, number = match[1], int(match[2])
    if drive == "0016E5":
        return "val" if 7959 <= number <= 8159 else "train"
    return "test" if drive == "Seq05VD" or (drive == "0001TP" and number > 8520) else "train"


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue
