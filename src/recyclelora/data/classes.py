"""Options of the classes that are told apart, ``data.classes``."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import MISSING

from recyclelora.system.checks import Problem, added, nearest

MAX_CLASSES = 254
"""Train ids fit 8 bits beside the marks of unlabelled pixels and of unknown ids."""


@dataclass
class ClassesConfig:
    """The classes that are told apart: index = train id."""

    names: list[str] = MISSING
    """by train id"""
    colours: list[list[int]] = field(default_factory=list)
    """[red, green, blue] of each in pictures; [] has different ones made"""
    ignore_index: int = 255
    """id of unlabelled pixels in a user's own masks; inside the program they are always 255"""
    contains: dict[str, list[str]] = added(dict)
    """further classes of datasets that one of these holds: {car: [truck, bus]}; all else is read by name"""

    def __post_init__(self) -> None:
        if not self.colours and isinstance(self.names, list):
            self.colours = distinct_colours(len(self.names))

    def check(self) -> Iterator[Problem]:
        if not 2 <= len(self.names) <= MAX_CLASSES or len(set(self.names)) != len(self.names):
            yield "names", f"must be 2 to {MAX_CLASSES} different names"
        if len(self.colours) != len(self.names):
            yield "colours", f"must hold one [r, g, b] for each of the {len(self.names)} names; [] has them made"
        if any(len(c) != 3 or not all(0 <= v <= 255 for v in c) for c in self.colours):
            yield "colours", "must be [r, g, b] with values from 0 to 255"
        if not len(self.names) <= self.ignore_index <= 255:
            yield "ignore_index", f"must lie between {len(self.names)} and 255"
        inner = [name for names in self.contains.values() for name in names]
        for name in self.contains:
            if name not in self.names:
                yield "contains", f"{name!r} is no class{nearest(name, self.names)}"
        for name in dict.fromkeys(inner):
            if inner.count(name) > 1:
                yield "contains", f"{name!r} is in two classes"
            elif name in self.names and name not in self.contains.get(name, []):
                yield "contains", f"{name!r} is a class of its own"


def distinct_colours(count: int) -> list[list[int]]:
    """[red, green, blue] for so many classes: hues by the golden ratio, in three steps of brightness; never black."""
    colours = []
    for index in range(count):
        saturation, value = ((0.85, 0.95), (0.6, 0.75), (0.95, 0.55))[index % 3]
        channels = colorsys.hsv_to_rgb(index * 0.618034 % 1, saturation, value)
        colours.append([round(255 * channel) for channel in channels])
    return colours
