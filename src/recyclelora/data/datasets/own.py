"""A user's own images and masks, found by patterns; an image and its mask are paired by what the wildcards match."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.datasets.base import FolderDataset, Item
from recyclelora.data.datasets.files import unlabelled, with_masks
from recyclelora.data.patterns import WILDCARD, filled, translated
from recyclelora.data.reading import ReadIds
from recyclelora.errors import UserError


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
    return FolderDataset(name, root, items, split.table, split.read_ids)


def matches(root: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """Files below ``root`` that match a pattern, sorted by path, keyed by what its wildcards match.

    Raises:
        UserError: two files with the same key.
    """
    expression = re.compile(translated(pattern))
    fixed = root / pattern[: (WILDCARD.search(pattern) or re.search("$", pattern)).start()].rpartition("/")[0]  # type: ignore[union-attr]
    found: dict[tuple[str, ...], Path] = {}
    for folder, folders, files in os.walk(fixed, followlinks=True):
        folders.sort()
        for path in sorted(Path(folder) / file for file in files):
            match = expression.fullmatch(path.relative_to(root).as_posix())
            if match is None:
                continue
            if match.groups() in found:
                other = found[match.groups()].relative_to(root)
                raise UserError(f"{root}: {pattern} matches both {other} and {path.relative_to(root)} as one sample")
            found[match.groups()] = path
    return dict(sorted(found.items(), key=lambda pair: pair[1]))
