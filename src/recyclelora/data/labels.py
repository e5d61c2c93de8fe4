"""Label ids as datasets store them -> train ids, by look-up table.

Facts from the datasets' own documentation; ids that are not named are ignored (255) unless a table says otherwise.
"""

from __future__ import annotations

import numpy as np

IGNORE = 255

CITYSCAPES_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Cityscapes' labelIds, which GTAV shares, to the 19 train ids."""

CITYSCAPES_KNOWN = 35
"""Cityscapes and GTAV define the ids 0 to 34 (and -1, stored as 255, for licence plates)."""


def lookup_table(train_ids: dict[int, int], known: int) -> np.ndarray:
    """Build the table (256,) of uint8 for 8-bit label ids.

    Args:
        train_ids: stored id -> train id.
        known: ids from 0 to ``known - 1`` are defined by the dataset.

    Returns:
        train id or 255 for every defined id and for a stored 255; 254 marks ids the dataset does not define.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    table[:known] = IGNORE
    table[IGNORE] = IGNORE
    for stored, train in train_ids.items():
        table[stored] = train
    return table


UNKNOWN = 254
"""Mark of an id that the dataset does not define: a defect, never wrapped into a class."""


def identity_table(num_classes: int) -> np.ndarray:
    """The table for masks that already hold train ids."""
    return lookup_table({index: index for index in range(num_classes)}, num_classes)
