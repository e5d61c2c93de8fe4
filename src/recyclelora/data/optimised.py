"""Masks that a lossless optimiser has rewritten: the picture is the same, the stored numbers are others.

``oxipng`` and its like turn a grey picture of few values into a palette of these greys, so that a pixel holds the place
of its id in the palette. A palette of greys that differ from their places is such a file, unless the greys are only
how somebody wished to see the ids: which of the two, the ids that the dataset defines tell. Palettes with a colour,
such as GTAV's, are never looked at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recyclelora.data.headers import GREY, PNG, png_header
from recyclelora.data.labels import IGNORE, UNKNOWN
from recyclelora.system.errors import UserError

SPREAD = {2: 85, 4: 17}
"""What decoders multiply grey values of so few bits by, to spread them over 8 bits."""


def unspread(ids: np.ndarray, data: bytes) -> np.ndarray:
    """The numbers that a grey PNG of 2 or 4 bits stores, from what a decoder has made of them; others as they are."""
    if not data.startswith(PNG):
        return ids
    header = png_header(data)
    spread = SPREAD.get(header.bits or 0) if header.colour == GREY else None
    return ids if spread is None else ids // spread


def by_meaning(ids: np.ndarray, palette: bytes, table: np.ndarray | None, path: Path) -> np.ndarray:
    """The ids (H, W) that a palette mask was written with.

    Args:
        ids: places in the palette, (H, W) uint8
        palette: red, green, blue of each place
        table: stored id -> train id; without one the places are returned
        path: of the mask

    Raises:
        UserError: the greys and their places can both be ids.
    """
    greys = _greys(palette)
    if greys is None or table is None:
        return ids
    used = np.unique(ids)
    if used[-1] >= len(greys) or (greys[used] == used).all():
        return ids
    if set(greys.tolist()) <= {0, 255}:  # a mask of two ids, shown black and white: an optimiser makes it 1-bit grey
        return ids
    # the whole palette is asked: greys to look at are no ids somewhere, also where this mask has only a few of them
    if not _are_ids(greys, table, path):
        return ids
    lookup = np.zeros(256, np.uint8)
    lookup[: len(greys)] = greys
    meant: np.ndarray = lookup[ids]
    return meant


def _greys(palette: bytes) -> np.ndarray | None:
    """The grey (n,) at each place of a palette; None where it holds a colour."""
    colours = np.frombuffer(palette[: len(palette) // 3 * 3], np.uint8).reshape(-1, 3)
    same = len(colours) and (colours == colours[:, :1]).all()
    return colours[:, 0] if same else None


def _are_ids(greys: np.ndarray, table: np.ndarray, path: Path) -> bool:
    """Whether the greys of a palette, rather than their places, are ids of the dataset."""
    by_value, by_place = table[greys], table[: len(greys)]
    if (table == UNKNOWN).any():  # it tells its ids from other numbers
        return not (by_value == UNKNOWN).any()
    classes = [int(np.count_nonzero(trains < IGNORE)) for trains in (by_value, by_place)]
    if all(classes):
        raise UserError(
            f"{path}: its pixels are places in a palette of the greys {greys[:4].tolist()}, ..., and places as well as "
            "greys can be ids: write the mask as an 8-bit grey PNG"
        )
    return classes[0] > 0
