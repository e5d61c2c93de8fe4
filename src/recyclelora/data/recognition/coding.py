"""What the masks of an undescribed folder hold: ids or colours, of which classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from recyclelora.data.folder import IGNORED
from recyclelora.data.labels import CITYSCAPES_CLASSES, CITYSCAPES_IDS, CITYSCAPES_KNOWN, IGNORE
from recyclelora.data.masks import UNREADABLE, read_numbers, unreadable
from recyclelora.system.errors import UserError

Colour = tuple[int, int, int]

CITYSCAPES_COLOURS: tuple[Colour, ...] = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

LEGENDS = (
    "classes.txt",
    "labels.txt",
    "label_colors.txt",
    "labelmap.txt",
    "class_dict.csv",
    "classes.csv",
    "codes.txt",
)
"""Files in which labelling tools and datasets name their classes."""

MOST_MASKS = 300
"""As many are looked at, spread evenly over all."""

MOST_CLASSES = 254

GUESSED = "made up: give your own"
"""Of names that no file tells."""


@dataclass
class Coding:
    """Of the masks of a folder."""

    kind: str
    """``ids`` or ``colours``"""
    names: list[str]
    """of the classes, by train id"""
    stored: dict[int | Colour, str] = field(default_factory=dict)
    """what pixels hold -> class, or ``ignore``"""
    colours: list[Colour] | None = None
    """of the classes in pictures, where masks or a legend give them"""
    share: dict[int | Colour, float] = field(default_factory=dict)
    """of the pixels that were looked at"""
    found_in: str = GUESSED
    """where the names are from"""
    looked_at: int = 0
    """masks"""

    def named(self, names: Sequence[str]) -> Coding:
        """With its owner's names, one for each class in their order: ``ignore`` leaves one out, equal ones are joined.

        Raises:
            UserError: another number of names, or fewer than two classes left.
        """
        if len(names) != len(self.names):
            raise UserError(f"--names: {len(names)} names for {len(self.names)} classes: {', '.join(self.names)}")
        kept = [name for name in dict.fromkeys(names) if name != IGNORED]
        if len(kept) < 2 or "" in kept:
            raise UserError(f"--names {','.join(names)}: at least two different names, none of them empty")
        new = dict(zip(self.names, names, strict=True))
        stored: dict[int | Colour, str] = self.stored or dict(enumerate(self.names))
        colours = self.colours and [self.colours[list(names).index(name)] for name in kept]
        return replace(
            self, names=kept, stored={value: new.get(name, name) for value, name in stored.items()}, colours=colours,
            found_in="yours",
        )  # fmt: skip


def recognise_coding(root: Path, masks: Sequence[Path], cityscapes: bool = False) -> Coding:
    """Look at masks and find what their numbers or colours mean, as far as files and names tell.

    Args:
        root: the folder, in which a legend may lie
        masks: of it
        cityscapes: whether their ids are known to be Cityscapes' label ids, and perhaps further ones

    Raises:
        UserError: a mask that cannot be read, or too many different colours.
    """
    places = np.linspace(0, len(masks) - 1, min(MOST_MASKS, len(masks))).round().astype(int)
    looked_at = [masks[place] for place in places]
    kind, counts, palette = _counted(looked_at)
    total = sum(counts.values())
    share: dict[int | Colour, float] = {value: counts[value] / total for value in sorted(counts)}
    legend = _legend(root)
    if kind == "ids" and cityscapes:
        coding = _of_cityscapes([int(v) for v in share if isinstance(v, int)])
    elif kind == "ids":
        coding = _of_ids(
            [v for v in share if isinstance(v, int)], " ".join(p.name for p in masks[:3]).lower(), legend, palette
        )
    else:
        coding = _of_colours([v for v in share if isinstance(v, tuple)], legend)
    coding.share, coding.looked_at = share, len(looked_at)
    if not 2 <= len(coding.names) <= MOST_CLASSES:
        raise UserError(
            f"{masks[0]}: masks hold {len(coding.names)} different {kind}: "
            + ("nothing can be told apart" if len(coding.names) < 2 else "they were blurred, resized or saved lossily")
        )
    return coding


def _counted(masks: Sequence[Path]) -> tuple[str, Counter[int | Colour], dict[int, Colour]]:
    """``ids`` or ``colours``, pixels of each, and the colours of a palette."""
    ids: Counter[int | Colour] = Counter()
    colours: Counter[int | Colour] = Counter()
    palette: dict[int, Colour] = {}
    for path in masks:
        try:
            with Image.open(path) as picture:
                if picture.mode in ("RGB", "RGBA"):
                    rgb = np.asarray(picture.convert("RGB")).astype(np.uint32)
                    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
                    for value, count in zip(*np.unique(packed, return_counts=True), strict=True):
                        colours[int(value) >> 16, int(value) >> 8 & 255, int(value) & 255] += int(count)
                    continue
                if picture.mode == "P":
                    entries = np.reshape(picture.getpalette("RGB") or [], (-1, 3)).astype(int)
                    palette |= {index: (r, g, b) for index, (r, g, b) in enumerate(entries.tolist())}
        except UNREADABLE as error:
            raise unreadable(path, error) from error
        for value, count in zip(*np.unique(read_numbers(path)[1], return_counts=True), strict=True):
            ids[int(value)] += int(count)
    if ids and colours:
        raise UserError(f"{masks[0].parent}: some masks hold ids and others colours: keep one of both kinds")
    return ("colours", colours, {}) if colours else ("ids", ids, palette)


def _of_ids(
    ids: list[int], file_names: str, legend: list[tuple[str, Colour | None]], palette: dict[int, Colour]
) -> Coding:
    others = [value for value in ids if value != IGNORE]
    if "trainids" in file_names and max(others, default=0) < len(CITYSCAPES_CLASSES):
        return Coding("ids", [*CITYSCAPES_CLASSES], {}, [*CITYSCAPES_COLOURS], found_in="Cityscapes' train ids")
    if "labelids" in file_names and max(others, default=0) < CITYSCAPES_KNOWN:
        return _of_cityscapes(others)
    if len(ids) == 2 and IGNORE in ids:  # a stencil: white is what is sought
        names = ["background", "foreground"]
        return Coding("ids", names, {others[0]: names[0], IGNORE: names[1]}, found_in="black and white")
    if legend and max(others, default=0) < len(legend):
        names = [name for name, _ in legend]
        colours = [colour for _, colour in legend if colour is not None]
        stored: dict[int | Colour, str] = {value: names[value] for value in range(len(names))}
        return Coding("ids", names, stored, colours if len(set(colours)) == len(names) else None, found_in="legend")
    names = [f"class_{value}" for value in others]
    painted = [palette.get(value, (0, 0, 0)) for value in others]
    return Coding(
        "ids", names, dict(zip(others, names, strict=True)), painted if len(set(painted)) == len(names) else None
    )


def _of_cityscapes(ids: Sequence[int]) -> Coding:
    """Cityscapes' label ids; ids that it does not define, as WildDash 2 has them, are unlabelled."""
    stored: dict[int | Colour, str] = {
        value: CITYSCAPES_CLASSES[CITYSCAPES_IDS[value]] if value in CITYSCAPES_IDS else "ignore"
        for value in sorted({*range(CITYSCAPES_KNOWN), *ids} - {IGNORE})
    }
    return Coding("ids", [*CITYSCAPES_CLASSES], stored, [*CITYSCAPES_COLOURS], found_in="Cityscapes' label ids")


def _of_colours(found: list[Colour], legend: list[tuple[str, Colour | None]]) -> Coding:
    named: dict[int | Colour, str] = {colour: name for name, colour in legend if colour is not None}
    where = "legend"
    if not named and sum(colour in CITYSCAPES_COLOURS for colour in found) * 2 > len(found):
        named |= zip(CITYSCAPES_COLOURS, CITYSCAPES_CLASSES, strict=True)
        where = "Cityscapes' colours"
    stored: dict[int | Colour, str] = {}
    for number, colour in enumerate(sorted({*found} - named.keys())):
        dark = colour == (0, 0, 0) and bool(named)
        stored[colour] = "ignore" if dark else "background" if colour == (0, 0, 0) else f"class_{number}"
    every: dict[int | Colour, str] = {**named, **stored}
    void = ("void", "unlabelled", "unlabeled", "ignore")
    stored = {value: "ignore" if name.lower() in void else name for value, name in every.items()}
    names = [name for name in dict.fromkeys(stored.values()) if name != "ignore"]
    first = {name: colour for colour, name in reversed(stored.items())}
    colours = [c for c in (first[name] for name in names) if isinstance(c, tuple)]
    return Coding("colours", names, stored, colours, found_in=where if named else GUESSED)


def _legend(root: Path) -> list[tuple[str, Colour | None]]:
    """Names, and colours where they are given, of the first legend that lies in the folder; empty without one."""
    for name in LEGENDS:
        if (root / name).is_file():
            lines = (root / name).read_text(encoding="utf-8", errors="replace").splitlines()
            found = [entry for line in lines if (entry := _entry(line)) is not None]
            if len({name for name, _ in found}) == len(found) > 1:
                return found
    return []


def _entry(line: str) -> tuple[str, Colour | None] | None:
    """Of ``name``, ``name,r,g,b``, ``r g b name`` or CVAT's ``name:r,g,b::``; None for a head or a remark."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    colour = re.search(r"(?<!\d)(\d{1,3})[ ,\t]+(\d{1,3})[ ,\t]+(\d{1,3})(?!\d)", text)
    name = (text.replace(colour.group(), "") if colour else text).strip(" ,;:\t\"'")
    if not name or re.fullmatch(r"(?i)(name|class|label)[s ,;]*(r|red)?[ ,;]*(g|green)?[ ,;]*(b|blue)?", name):
        return None
    if colour is None:
        return name, None
    red, green, blue = (int(part) for part in colour.groups())
    return (name, (red, green, blue)) if max(red, green, blue) < 256 else None
