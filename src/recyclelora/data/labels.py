"""Label ids as datasets store them -> train ids, by look-up table.

Facts from the datasets' own documentation; ids that are not named are ignored (255) unless a table says otherwise.
Mapillary's tables are beside its class names, in ``datasets/mapillary_classes.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

IGNORE = 255
"""Marks pixels without a label everywhere inside the program."""

UNKNOWN = 254
"""Mark of an id that the dataset does not define: a defect, never wrapped into a class."""

PADDING = UNKNOWN
"""Mark of the pixels that a training crop has beyond its image: unlabelled, and 0.0 after the normalisation. Reading
refuses unknown ids, so that no other pixel of a crop has it."""

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Names of the 19 train ids, which are what most datasets are read to."""

CITYSCAPES_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Cityscapes' labelIds, which GTAV shares, to the 19 train ids."""

CITYSCAPES_KNOWN = 35
"""Cityscapes and GTAV define the ids 0 to 34 (and -1, stored as 255, for licence plates)."""

SYNTHIA_IDS = {
    1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18, 12: 17, 15: 6, 16: 9, 17: 12, 18: 14,
    19: 15, 20: 16, 21: 3,
}  # fmt: skip
"""SYNTHIA's (RAND_CITYSCAPES) ids to the 19 train ids."""

SYNTHIA_KNOWN = 23
"""SYNTHIA defines the ids 0 to 22."""

SYNTHIA_ABSENT = frozenset({9, 14, 16})
"""Terrain, truck and train have ids in SYNTHIA but occur in none of its images: 16 classes are left."""

WILDDASH_IDS = CITYSCAPES_IDS | {34: 14, 35: 13, 38: 0}
"""WildDash 2's ids are Cityscapes' and some more: pickups are trucks, vans are cars, markings are road, as its authors'
own conversion has it; billboards (36) and street lights (37) have no train id."""

WILDDASH_KNOWN = 39
"""WildDash 2 defines the ids 0 to 38."""

RAILSEM_IDS = {
    0: 0, 1: 1, 2: 2, 3: 0, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9, 10: 10, 11: 11, 13: 13, 14: 14, 16: 16, 18: 0,
}  # fmt: skip
"""RailSem19's ids to the 19 train ids: constructions are buildings, humans are persons, what runs on rails is a train,
and tracks in a street (3, 18) are road, as in WildDash 2; rail track, trackbed, raised rails (12, 15, 17) have none."""

RAILSEM_KNOWN = 19
"""RailSem19 defines the ids 0 to 18, and 255 for what has none."""

URBANSYN_KNOWN = 20
"""UrbanSyn stores train ids, and 19 for what has none."""


def lookup_table(train_ids: dict[int, int], known: int, *, size: int = 256) -> np.ndarray:
    """Build the table (size,) of uint8 for stored ids below ``size``.

    Args:
        train_ids: stored id -> train id.
        known: ids from 0 to ``known - 1`` are defined by the dataset.
        size: 256 for 8-bit masks, 65536 for 16-bit ones.

    Returns:
        train id or 255 for every defined id and for a stored 255; 254 marks ids the dataset does not define.
    """
    table = np.full(size, UNKNOWN, np.uint8)
    table[:known] = IGNORE
    table[IGNORE] = IGNORE
    for stored, train in train_ids.items():
        table[stored] = train
    return table


def identity_table(num_classes: int, known: int | None = None) -> np.ndarray:
    """The table for masks that already hold train ids; defined ids from ``num_classes`` to ``known - 1`` have none."""
    return lookup_table({index: index for index in range(num_classes)}, known or num_classes)


def table_classes(table: np.ndarray) -> frozenset[int]:
    """The train ids that a table can give."""
    return frozenset(int(train) for train in np.unique(table) if train < UNKNOWN)


CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "sidewalk", "vegetation", "sign", "fence", "car", "person", "bicyclist",
)  # fmt: skip
"""SegNet's 11 classes of CamVid in their order. ``sign`` holds traffic lights, ``bicyclist`` what is ridden, ``car``
all that drives; the others mean what Cityscapes' of the same name mean."""

IDD_LITE_CLASSES = ("drivable", "non-drivable", "living things", "vehicles", "roadside objects", "far objects", "sky")
"""IDD-Lite's, in their order."""

OWN_CLASSES = {"camvid": CAMVID_CLASSES, "idd_lite": IDD_LITE_CLASSES}
"""Datasets that are not read to Cityscapes' classes, and what they are read to."""


def by_name(
    names: Sequence[str],
    own: Sequence[str] = CITYSCAPES_CLASSES,
    contains: Mapping[str, Sequence[str]] | None = None,
) -> tuple[int, ...] | None:
    """For each of a dataset's ``own`` classes its place in a run's class list, 255 where that does not have it.

    ``contains`` names further classes of datasets that one of the run's holds. None where nothing changes: the list
    begins with all of them in their order. So is one with all of Cityscapes' in another order: version 0.1.0 read
    those by number, and new runs are refused.
    """
    if tuple(own) == CITYSCAPES_CLASSES and not contains and sorted(names) == sorted(own):
        return None
    places = {name: index for index, name in enumerate(names)}
    places |= {inner: places[name] for name, inners in (contains or {}).items() for inner in inners}
    found = tuple(places.get(name, IGNORE) for name in own)
    return None if found == tuple(range(len(own))) else found


def renumbered(table: np.ndarray, train_ids: Sequence[int]) -> np.ndarray:
    """A table from stored ids to train ids with ``train_ids[t]`` in the place of every train id t."""
    changed = np.arange(256, dtype=np.uint8)
    changed[: len(train_ids)] = train_ids
    result: np.ndarray = changed[table]
    return result


def explicit_table(
    train_ids: dict[int, int], num_classes: int, ignored: Iterable[int], *, ignore_others: bool
) -> np.ndarray:
    """The table (65536,) of a user's own masks, 8-bit or 16-bit.

    Args:
        train_ids: stored id -> train id; empty means that masks hold train ids.
        num_classes: how many train ids there are.
        ignored: stored ids of unlabelled pixels.
        ignore_others: ids that are not named are unlabelled too, rather than defects.
    """
    table = np.full(1 << 16, IGNORE if ignore_others else UNKNOWN, np.uint8)
    for stored in ignored:
        table[stored] = IGNORE
    for stored, train in (train_ids or {index: index for index in range(num_classes)}).items():
        table[stored] = train
    return table
