"""Options of a user's own images and masks, ``data.folder``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.data.patterns import odd_braces, wildcards
from recyclelora.system.checks import Problem, added, checked, one_of

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045

IGNORED = "ignore"
"""The name that marks an id or colour as unlabelled."""

MAX_ID = (1 << 16) - 1


@dataclass
class CodingConfig:
    """How masks are stored. A class is given by its name, its train id, or ``ignore``."""

    kind: str = checked("ids", one_of, ("ids", "colours"))
    """what pixels hold: ``ids`` of 8 or 16 bits, or ``colours``"""
    ids: dict[int, Any] = field(default_factory=dict)
    """stored id -> class; without any, masks hold train ids"""
    colours: dict[str, Any] = field(default_factory=dict)
    """"#rrggbb" or "r,g,b" -> class, beside or instead of those of ``data.classes``"""
    others: str = checked("refuse", one_of, ("refuse", "ignore"))
    """what is not named: a defect (``refuse``) or unlabelled (``ignore``)"""

    def check(self) -> Iterator[Problem]:
        if not all(0 <= stored <= MAX_ID for stored in self.ids):
            yield "ids", f"must map ids from 0 to {MAX_ID}"
        for text in self.colours:
            if parse_colour(text) is None:
                yield "colours", f'{text!r} is no colour: write "#rrggbb" or "r,g,b"'


@dataclass
class SplitConfig:
    """Patterns relative to ``data.folder.root``; an image and its mask are paired by what the wildcards match."""

    images: str = MISSING
    """pattern of the images"""
    masks: Optional[str] = None
    """pattern of their masks; null for images that can only be predicted"""
    coding: Optional[CodingConfig] = None
    """of these masks; null takes ``folder.coding``"""
    list: Optional[str] = added(None)
    """text file below the root that names the split's images, one a line; null takes all that match"""
    share: Optional[float] = added(None)
    """of the images that match: splits of the same patterns divide them by ``data.subset_seed``; null takes all"""

    def check(self) -> Iterator[Problem]:
        if self.masks is not None and wildcards(self.images) != wildcards(self.masks):
            yield "masks", f"must have the same wildcards as images={self.images!r}"
        for name in ("images", "masks"):
            if (getattr(self, name) or "x").startswith("/") or ".." in (getattr(self, name) or "").split("/"):
                yield name, "must be a pattern below data.folder.root"
        if self.list is not None and (self.list.startswith("/") or ".." in self.list.split("/")):
            yield "list", "must be a file below data.folder.root"
        if self.share is not None and not 0 < self.share < 1:
            yield "share", "must lie between 0 and 1, both left out"
        if self.share is not None and self.list is not None:
            yield "share", "cannot be given beside list"

    def check_new(self) -> Iterator[Problem]:
        for name in ("images", "masks"):
            if (what := odd_braces(getattr(self, name) or "")) is not None:
                yield name, what
        if self.masks == self.images:
            yield "masks", "is the pattern of the images: say how their masks are called, or null where there are none"


@dataclass
class FolderConfig:
    """A user's own data."""

    root: str = MISSING
    """folder of all splits"""
    splits: dict[str, SplitConfig] = field(default_factory=dict)
    """by any names"""
    coding: CodingConfig = field(default_factory=CodingConfig)
    """of all masks but those of splits with their own"""
    exclude: list[str] = added(list)
    """patterns of images that no split has"""
    group: Optional[str] = added(None)
    """what keeps images together when they are divided, such as a drive: so many folders of their path, or a regular
    expression over it"""

    def check(self) -> Iterator[Problem]:
        for images, shares in self.divisions().items():
            if sum(shares.values()) > 1 + 1e-9:
                yield "splits", f"the shares of {images!r} come to {sum(shares.values()):g}: they cannot be above 1"
        if self.group is not None and self.drive() is None:
            yield "group", "must be a number of folders, at least 1, or a regular expression"

    def divisions(self) -> dict[str, dict[str, float]]:
        """Pattern of images -> the splits that divide what it matches, and their shares."""
        found: dict[str, dict[str, float]] = {}
        for name, split in self.splits.items():
            if split.share is not None:
                found.setdefault(split.images, {})[name] = split.share
        return found

    def drive(self) -> Optional[str]:
        """``group`` as a regular expression over an image's path below the root, whose groups name what it is of."""
        if self.group is None:
            return None
        if self.group.isdecimal():
            return rf"^((?:[^/]+/){{{self.group}}})" if int(self.group) else None
        try:
            groups = re.compile(self.group).groups
        except re.error:
            return None
        return self.group if groups else f"({self.group})"


def masks_beside(split: str, images: str) -> Optional[str]:
    """Pattern of the masks of a split that ``conf/data/folder.yaml`` lays out; None where its images lie elsewhere.

    A user's split of the same name then does not inherit masks that it was not given.
    """
    return f"masks/{split}/**/*.png" if re.fullmatch(rf"images/{split}/\*\*/\*\.[^/]*", images) else None


def parse_colour(text: str) -> Optional[tuple[int, int, int]]:
    """(red, green, blue) of "#rrggbb" or "r,g,b"; None for anything else."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    values = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(values) != 3 or text.count(",") != 2 or max(values) > 255:
        return None
    return values[0], values[1], values[2]


def class_index(given: Any, names: list[str], ignore: int) -> Optional[int]:
    """The train id that a class name, a train id or ``ignore`` stands for; None where it is none of them."""
    if given == IGNORED:
        return ignore
    if isinstance(given, int) and not isinstance(given, bool):
        return given if 0 <= given < len(names) else ignore if given == ignore else None
    return names.index(given) if given in names else None
