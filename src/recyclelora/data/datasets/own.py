"""A user's own images and masks, found by patterns; an image and its mask are paired by what the wildcards match."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.datasets.base import FolderDataset, Item
from recyclelora.data.datasets.files import unlabelled, with_masks
from recyclelora.data.datasets.upright import upright
from recyclelora.data.patterns import WILDCARD, filled, is_hidden, translated
from recyclelora.data.reading import ReadIds
from recyclelora.system.errors import UserError

Key = tuple[str, ...]
"""What the wildcards of a pattern match in a file's path."""

DRIVE = r"^(.*?)_f?\d{4,}\.\w+$"
"""Names of frames as in CamVid: ``0001TP_006690.png`` and ``Seq05VD_f00030.png``."""


@dataclass(frozen=True)
class OwnSplit:
    """Where the files of one split are and how its masks are stored."""

    root: Path
    images: str
    """pattern relative to ``root``: ``*`` and ``?`` within a name, ``**`` across folders, ``{png,jpg}`` alternatives"""
    masks: str | None
    """pattern with the same wildcards as ``images``; None for images without masks"""
    table: np.ndarray
    read_ids: ReadIds
    orientation: str | None = None
    """``turned`` or ``stored``: how masks lie under photographs where sizes cannot tell"""


def own_folder(name: str, split: OwnSplit) -> FolderDataset:
    """Open a split of a user's own data.

    Raises:
        UserError: folder or files are not there, images without a mask, or patterns that do not tell files apart.
    """
    root = split.root
    if not root.is_dir():
        raise UserError(f"data.folder.root={root}: no such folder; it is to hold your images and masks")
    images = matches(root, split.images)
    if not images:
        raise UserError(f"{root.absolute()}: no image matches {split.images}")
    masks = matches(root, split.masks) if split.masks else {}
    if split.masks is None:
        items = unlabelled(list(images.values()))
    else:
        expected = {key: masks.get(key, root / filled(split.masks, key)) for key in images}
        pairs = [Item(image, expected[key]) for key, image in images.items()]
        items = with_masks(root, pairs, [p for p, key in zip(pairs, images, strict=True) if key not in masks])
    items = upright(root, items, split.orientation)
    return FolderDataset(name, root, items, split.table, split.read_ids, drive=DRIVE)


def matches(root: Path, pattern: str) -> dict[Key, Path]:
    """Files below ``root`` that match a pattern, sorted by path, keyed by what its wildcards match.

    Suffixes match whatever their case, since cameras write ``.JPG``. Hidden files match only a pattern that names them.

    Raises:
        UserError: two files with the same key.
    """
    expression = re.compile(translated(pattern))
    fixed = root / pattern[: (WILDCARD.search(pattern) or re.search("$", pattern)).start()].rpartition("/")[0]  # type: ignore[union-attr]
    found: dict[Key, Path] = {}
    for path in files_below(fixed):
        inside = path.relative_to(root).as_posix()
        match = expression.fullmatch(inside)
        if match is None or (is_hidden(inside) and not is_hidden(pattern)):
            continue
        if match.groups() in found:
            other = found[match.groups()].relative_to(root)
            raise UserError(f"{root}: {pattern} matches both {other} and {inside} as one sample")
        found[match.groups()] = path
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def files_below(folder: Path, loops: list[Path] | None = None) -> Iterator[Path]:
    """Every file below a folder in a fixed order, through links.

    A link to a folder that it lies in would show all files again at every level: it is not followed, and is put into
    ``loops``.
    """
    above: dict[str, tuple[tuple[int, int], ...]] = {os.fspath(folder): (_identity(folder),)}
    for here, folders, files in os.walk(folder, followlinks=True):
        way = above.pop(here)
        for name in sorted(folders):
            path = Path(here, name)
            identity = _identity(path)
            if identity in way:
                folders.remove(name)
                if loops is not None:
                    loops.append(path)
            else:
                above[os.fspath(path)] = (*way, identity)
        folders.sort()
        yield from (Path(here, name) for name in sorted(files))


def _identity(folder: Path) -> tuple[int, int]:
    """Which folder it is, whatever leads there."""
    try:
        status = folder.stat()
    except OSError:  # gone, or forbidden; os.walk finds nothing in it either
        return (0, 0)
    return status.st_dev, status.st_ino
