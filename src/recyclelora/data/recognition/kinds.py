"""Which files of a folder are images and which are masks, told by their pixels and not by their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image

from recyclelora.data.datasets.own import files_below
from recyclelora.data.images import IMAGE_SUFFIXES
from recyclelora.data.masks import UNREADABLE
from recyclelora.data.patterns import is_hidden

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Words by which folders are called -> the split."""

NO_TEXT = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
"""Words that YAML does not read as such, and no names of splits."""

_PARTS = "images?|imgs?|rgb|masks?|labels?|annot(?:ation)?s?|gt|seg"
_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
_SPLIT = re.compile(rf"(?i)^(?:(?P<a>{_WORDS})(?P<b>(?:[^a-z].*)?|{_PARTS})|(?P<c>.*[^a-z])(?P<d>{_WORDS}))$")

_TAIL = re.compile(r"(?:[_\-. ][A-Za-z][A-Za-z0-9]*)+$")
_HEAD = re.compile(r"^[A-Za-z]+[_\-. ]")

SAMPLED = 3
"""Files of a kind that are looked at."""

FLAT = 0.8
"""Least share of a mask's pixels that equal their right neighbour; photographs stay far below."""

MOST_COLOURS = 256
"""Different pixels that a mask may have."""


@dataclass(frozen=True)
class Name:
    """A file's path, taken apart."""

    path: str
    """relative to the root"""
    place: str
    """its folders up to the one that names a split, in which ``{split}`` stands for that, and one called ``images``,
    ``masks`` and the like in it; else the first folder"""
    split: str | None
    word: str
    """how the split is called there"""
    rest: str
    """folders behind ``place``, each with its slash"""
    head: str
    core: str
    tail: str
    """of the name without its suffix, which is head + core + tail"""
    suffix: str


@dataclass
class Kind:
    """Files that are named alike and lie alike."""

    place: str
    tail: str
    names: list[Name] = field(default_factory=list)

    @property
    def suffixes(self) -> list[str]:
        """Without their dots, in lower case."""
        return sorted({name.suffix.lower().removeprefix(".") for name in self.names})


def find_kinds(root: Path) -> tuple[list[Kind], list[Kind]]:
    """Kinds of images and of masks below a folder, the largest first."""
    paths = [path.relative_to(root).as_posix() for path in files_below(root) if path.is_file()]
    names = _taken_apart([p for p in paths if PurePosixPath(p).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(p)])
    places = {name.place for name in names if name.split is not None}
    beside = {name: own for name in names if name.split is None and (own := _placed_beside(name, places))}
    families: dict[tuple[str, str, str, str], list[Name]] = defaultdict(list)
    for name in names:
        own = beside.get(name)
        families[own.word if own else "", (own or name).place, name.tail, name.suffix.lower()].append(name)
    images: list[Kind] = []
    masks: list[Kind] = []
    for (word, place, tail, suffix), members in sorted(families.items(), key=lambda family: family[0][0] != ""):
        are_masks = holds_masks(root, members)
        kinds = masks if are_masks else images
        alike = [k for k in kinds if k.tail == tail and (not are_masks or k.suffixes == [suffix.removeprefix(".")])]
        if word and (home := next((k for k in alike if k.place == place), None)):
            home.names.extend(beside[name] for name in members)
        elif home := next((k for k in alike if k.place == members[0].place), None):
            home.names.extend(members)
        else:
            kinds.append(Kind(members[0].place, tail, members))
    return sorted(images, key=_size), sorted(masks, key=_size)


def _placed_beside(name: Name, places: set[str]) -> Name | None:
    """A name in a folder beside ``train`` and ``val`` as one of a split that is called like the folder."""
    folders = PurePosixPath(name.path).parts[:-1]
    for index, folder in enumerate(folders):
        inside, rest = _inside(folders[index + 1 :])
        place = "/".join([*folders[:index], "{split}", *inside])
        if place in places and re.fullmatch(r"[A-Za-z]\w*", folder) and folder.lower() not in NO_TEXT:
            return replace(name, place=place, split=folder, word=folder, rest=rest)
    return None


def _size(kind: Kind) -> int:
    return -len(kind.names)


def _taken_apart(paths: Sequence[str]) -> list[Name]:
    """A head or tail of a name is one only where others beside it have it, too."""
    pures = [PurePosixPath(path) for path in paths]
    sizes = Counter(pure.parent for pure in pures)
    heads = Counter((pure.parent, head) for pure in pures for head in _heads(pure.stem))
    tails = Counter((pure.parent, tail) for pure in pures for tail in _tails(pure.stem))
    found = []
    for path, pure in zip(paths, pures, strict=True):
        here, stem = pure.parent, pure.stem
        least = max(2, sizes[here] * 3 // 10)
        head = next((text for text in _heads(stem) if heads[here, text] >= least), "")
        tail = next((text for text in _tails(stem) if tails[here, text] >= least), "")
        core = stem[len(head) : len(stem) - len(tail)]
        if not core:  # the whole name is words
            head, tail, core = "", "", stem
        place, split, word, rest = _placed(here.parts)
        found.append(Name(path, place, split, word, rest, head, core, tail, pure.suffix))
    return found


def _heads(stem: str) -> list[str]:
    return [match.group() for match in [_HEAD.match(stem)] if match]


def _tails(stem: str) -> list[str]:
    """The words at the end of a name, the longest tail first: ``_gtFine_labelIds``, ``_labelIds``."""
    match = _TAIL.search(stem)
    places = [found.start() for found in re.finditer(r"[_\-. ]", match.group())] if match else []
    return [match.group()[place:] for place in places] if match else []


def _placed(folders: Sequence[str]) -> tuple[str, str | None, str, str]:
    for index, folder in enumerate(folders):
        match = _SPLIT.match(folder)
        if match is not None:
            word = match["a"] or match["d"]
            inside, rest = _inside(folders[index + 1 :])
            place = "/".join([*folders[:index], f"{match['c'] or ''}{{split}}{match['b'] or ''}", *inside])
            return place, SPLITS[word.lower()], word, rest
    return "/".join(folders[:1]), None, "", _slashed(folders[1:])


def _inside(folders: Sequence[str]) -> tuple[Sequence[str], str]:
    """The folder in a split's that tells images from masks, as in ``train/images``, if it does; and what is left."""
    count = int(bool(folders) and re.fullmatch(f"(?i){_PARTS}", folders[0]) is not None)
    return folders[:count], _slashed(folders[count:])


def _slashed(folders: Sequence[str]) -> str:
    return "".join(f"{folder}/" for folder in folders)


def holds_masks(root: Path, names: Sequence[Name]) -> bool:
    """Whether files are masks: lossless, few different pixels, and large areas of one."""
    places = np.linspace(0, len(names) - 1, min(SAMPLED, len(names))).round().astype(int)
    found = [_is_mask(root / names[place].path) for place in places]
    return sum(found) * 2 > len(found)


def _is_mask(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            if picture.format in ("JPEG", "MPO", "WEBP"):
                return False
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except UNREADABLE:
        return False
    if pixels is None:
        return False
    packed: np.ndarray = pixels.astype(np.uint32)
    if packed.ndim == 3:
        packed = packed[..., 0] << 16 | packed[..., 1] << 8 | packed[..., 2]
    flat = float((packed[:, 1:] == packed[:, :-1]).mean()) if packed.shape[1] > 1 else 1.0
    return flat >= FLAT and len(np.unique(packed)) <= MOST_COLOURS
