"""Options of a user's own images and masks, ``data.folder``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import MISSING

from recyclelora.data.patterns import wildcards
from recyclelora.system.checks import Problem, one_of

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045

IGNORED = "ignore"
"""The name that marks an id or colour as unlabelled."""

MAX_ID = (1 << 16) - 1


@dataclass
class CodingConfig:
    """How masks are stored. A class is given by its name, its train id, or ``ignore``."""

    kind: str = "ids"
    """what pixels hold: ``ids`` of 8 or 16 bits, or ``colours``"""
    ids: dict[int, Any] = field(default_factory=dict)
    """stored id -> class; without any, masks hold train ids"""
    colours: dict[str, Any] = field(default_factory=dict)
    """"#rrggbb" or "r,g,b" -> class, beside or instead of those of ``data.classes``"""
    others: str = "refuse"
    """what is not named: a defect (``refuse``) or unlabelled (``ignore``)"""

    def check(self) -> Iterator[Problem]:
        yield from one_of("kind", self.kind, ("ids", "colours"))
        yield from one_of("others", self.others, ("refuse", "ignore"))
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

    def check(self) -> Iterator[Problem]:
        if self.masks is not None and wildcards(self.images) != wildcards(self.masks):
            yield "masks", f"must have the same wildcards as images={self.images!r}"
        for name in ("images", "masks"):
            if (getattr(self, name) or "x").startswith("/") or ".." in (getattr(self, name) or "").split("/"):
                yield name, "must be a pattern below data.folder.root"


@dataclass
class FolderConfig:
    """A user's own data."""

    root: str = MISSING
    """folder of all splits"""
    splits: dict[str, SplitConfig] = field(default_factory=dict)
    """by any names"""
    coding: CodingConfig = field(default_factory=CodingConfig)
    """of all masks but those of splits with their own"""


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
