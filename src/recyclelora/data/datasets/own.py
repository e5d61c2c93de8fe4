"""A user's own images and masks, found by patterns; an image and its mask are paired by what the wildcards match."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.datasets.base import FolderDataset, Item
from recyclelora.data.datasets.division import Division, listed
from recyclelora.data.datasets.files import unlabelled, with_masks
from recyclelora.data.datasets.upright import upright
from recyclelora.data.patterns import WILDCARD, filled, is_hidden, shared_braces, translated
from recyclelora.data.reading import ReadIds
from recyclelora.system.errors import UserError

Key = tuple[str, ...]
"""What the wildcards of a pattern match in a file's path."""

DRIVE = r"^(.*?)_f?\d{4,}\.\w+$"
"""Names of frames as in CamVid: ``0001TP_006690.png`` and ``Seq05VD_f00030.png``."""


@dataclass(frozen=True)
class OwnSplit:
    """Where the files of one split are."""

    name: str
    root: Path
    images: str
    """pattern relative to ``root``: ``*`` and ``?`` within a name, ``**`` across folders, ``{png,jpg}`` alternatives"""
    masks: str | None
    """pattern with the same wildcards as ``images``; None for images without masks"""
    list: str | None = None
    """text file below ``root`` that names its images"""
    division: Division | None = None
    """splits with which it shares its images"""
    exclude: tuple[str, ...] = ()
    """patterns of images that no split has"""

    def find(self) -> OwnFiles:
        """Look which files there are.

        Raises:
            UserError: a pattern that does not tell files apart, or matches nothing; a list that fits no images.
        """
        telling = shared_braces(self.images, self.masks)
        masks = None if self.masks is None else matches(self.root, self.masks, telling)
        mine = {*(masks or {}).values()}  # in a flat folder a pattern of images may match masks, too
        images = matches(self.root, self.images, telling, but=mine)
        if not images:
            raise UserError(f"{self.root.absolute()}: no image matches {self.images}")
        left: dict[Key, str] = {}
        names = {key: path.relative_to(self.root).as_posix() for key, path in images.items()}
        for pattern in self.exclude:
            left |= dict.fromkeys(self._excluded(pattern, names), "excluded")
        names = {key: name for key, name in names.items() if key not in left}
        if self.list is not None:
            chosen = listed(self.root / self.list, names.values())
            left |= {key: f"not in {self.list}" for key, name in names.items() if name not in chosen}
        elif self.division is not None:
            shares = self.division.of(sorted(names.values()))
            left |= {key: "of another share" for key, name in names.items() if name not in shares[self.name]}
        kept = {key: path for key, path in images.items() if key not in left}
        return OwnFiles(kept, masks, {images[key]: why for key, why in left.items()}, left)

    def _excluded(self, pattern: str, names: Mapping[Key, str]) -> set[Key]:
        expression = re.compile(translated(pattern))
        found = {key for key, name in names.items() if expression.fullmatch(name)}
        if not found and not any(
            expression.fullmatch(p.relative_to(self.root).as_posix()) for p in files_below(self.root)
        ):
            raise UserError(f"data.folder.exclude: nothing below {self.root.absolute()} matches {pattern}")
        return found


@dataclass(frozen=True)
class OwnFiles:
    """Files of one split."""

    images: dict[Key, Path]
    masks: dict[Key, Path] | None
    """of all that match, also of images that are left out; None where the split has none"""
    left: dict[Path, str]
    """images that match and do not belong to it, and why"""
    left_keys: dict[Key, str]
    """the same by key"""


def own_folder(
    name: str, split: OwnSplit, table: np.ndarray, read_ids: ReadIds, *,
    orientation: str | None = None, drive: str = DRIVE,
) -> FolderDataset:  # fmt: skip
    """Open a split of a user's own data.

    Args:
        name: of the dataset
        split: where its files are
        table: stored id -> train id
        read_ids: reads a mask's stored ids
        orientation: ``turned`` or ``stored``: how masks lie under photographs where sizes cannot tell
        drive: regular expression over an image's path, whose groups name the drive that it is a frame of

    Raises:
        UserError: folder or files are not there, images without a mask, or patterns that do not tell files apart.
    """
    root = split.root
    if not root.is_dir():
        raise UserError(f"data.folder.root={root}: no such folder; it is to hold your images and masks")
    files = split.find()
    images, masks = files.images, files.masks
    if masks is None or split.masks is None:
        items = unlabelled(list(images.values()))
    else:
        telling = shared_braces(split.images, split.masks)
        expected = {key: masks.get(key, root / filled(split.masks, key, telling)) for key in images}
        pairs = [Item(image, expected[key]) for key, image in images.items()]
        items = with_masks(root, pairs, [p for p, key in zip(pairs, images, strict=True) if key not in masks])
    items = upright(root, items, orientation)
    return FolderDataset(name, root, items, table, read_ids, drive=drive)


def matches(
    root: Path, pattern: str, telling: Collection[str] = (), but: Collection[Path] = ()
) -> dict[Key, Path]:  # fmt: skip
    """Files below ``root`` that match a pattern, sorted by path, keyed by what its wildcards match.

    Suffixes match whatever their case, since cameras write ``.JPG``. Hidden files match only a pattern that names them.

    Args:
        root: the folder
        pattern: relative to it
        telling: alternatives in braces that belong to the key
        but: files that are something else

    Raises:
        UserError: two files with the same key.
    """
    expression = re.compile(translated(pattern, telling))
    fixed = root / pattern[: (WILDCARD.search(pattern) or re.search("$", pattern)).start()].rpartition("/")[0]  # type: ignore[union-attr]
    found: dict[Key, Path] = {}
    for path in files_below(fixed):
        inside = path.relative_to(root).as_posix()
        match = expression.fullmatch(inside)
        if match is None or (is_hidden(inside) and not is_hidden(pattern)) or path in but:
            continue
        if match.groups() in found:
            other = found[match.groups()].relative_to(root)
            braces = "; braces tell samples apart where images and masks have the same" if "{" in pattern else ""
            raise UserError(f"{root}: {pattern} matches both {other} and {inside} as one sample{braces}")
        found[match.groups()] = path
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def files_below(folder: Path, loops: list[Path] | None = None) -> Iterator[Path]:
    """Every file below a folder in a fixed order, through links.

    A link to a folder that it lies in, also above ``folder``, would show all files again at every level, and those of
    other splits as this one's: it is not followed, and is put into ``loops``.
    """
    above: dict[str, tuple[tuple[int, int], ...]] = {os.fspath(folder): (_identity(folder),)}
    for here, folders, files in os.walk(folder, followlinks=True):
        way = above.pop(here)
        for name in sorted(folders):
            path = Path(here, name)
            identity = _identity(path)
            if identity in way or (path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())):
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
