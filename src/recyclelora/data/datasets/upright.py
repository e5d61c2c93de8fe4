"""Photographs with an EXIF orientation: which of them are turned, so that each lies under its mask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from recyclelora.data.datasets.base import Item
from recyclelora.data.datasets.files import NAMED, Problem, refuse
from recyclelora.data.headers import Header, read_header, read_headers
from recyclelora.data.orientation import UPRIGHT
from recyclelora.system.errors import UserError, some

TURNED, STORED = "turned", "stored"


def upright(folder: Path, items: Iterable[Item], told: str | None) -> tuple[Item, ...]:
    """The items with the turn of each image.

    An image without a mask is turned as it is to be shown. A mask tells by its size on which grid it lies. Where both
    have one size (squares, turns by 180 degrees, mirror images), what the other files of the set say counts, or
    ``told``: ``turned`` or ``stored``.

    Raises:
        UserError: images that their masks fit both ways, and nothing tells which.
    """
    found = list(items)
    headers = read_headers([item.image for item in found])
    oriented = {i: header for i, header in enumerate(headers) if header is not None and header.orientation != UPRIGHT}
    if not oriented:
        return tuple(found)
    grids = {index: _grid(header, found[index].label) for index, header in oriented.items()}
    said = {grid for grid in grids.values() if grid is not None and len(grid) == 1}
    usual = told or (next(iter(said))[0] if len(said) == 1 else None)
    if usual is None and (open_ones := [found[i] for i, grid in grids.items() if grid == (TURNED, STORED)]):
        refuse(_undecided(folder, open_ones), [Problem("EXIF orientation", i.image, _QUESTION) for i in open_ones])
    for index, header in oriented.items():
        grid = grids[index] or (STORED,)
        if (grid[0] if len(grid) == 1 else usual) == TURNED:
            found[index] = replace(found[index], turn=header.orientation)
    return tuple(found)


def _grid(image: Header, mask: Path | None) -> tuple[str, ...] | None:
    """On which of an image's grids its mask can lie; None where it fits neither, which whoever reads it says."""
    if mask is None:
        return (TURNED,)
    its = read_header(mask)
    if its is None:
        return None
    if its.size == image.size and its.orientation == image.orientation:  # made from the stored pixels, metadata too
        return (STORED,)
    sizes = {TURNED: image.turned_size, STORED: image.size}
    return tuple(grid for grid, size in sizes.items() if size == its.size) or None


_QUESTION = "its mask fits both ways: data.orientation=turned (drawn on the picture as shown) or stored"


def _undecided(folder: Path, items: list[Item]) -> UserError:
    shown = some([item.image.relative_to(folder).as_posix() for item in items], NAMED)
    return UserError(
        f"{folder.absolute()}: {len(items)} images carry an EXIF orientation and have masks that fit both ways: {shown}"
        ". Say data.orientation=turned (masks drawn on the pictures as shown) or data.orientation=stored"
    )
