"""Which images and masks of an undescribed folder belong together, as the patterns of ``data.folder.splits``."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from recyclelora.data.datasets.own import DRIVE, OwnSplit
from recyclelora.data.recognition.kinds import SPLITS, Kind, Name, find_kinds
from recyclelora.system.errors import UserError

SHARES = {"train": 0.8, "val": 0.2}
"""Where a folder has no splits of its own."""

FEWEST_GROUPS = 3
"""Drives, or folders, from which shares can be made of whole ones."""

_RANKS = (("trainids", 0), ("labelids", 1), ("color", 3), ("colour", 3), ("instance", 4), ("panoptic", 4), ("poly", 4))
_MASK_WORDS = re.compile(r"(?i)(mask|label|annot|gt|seg)")

LISTS = ("", "ImageSets/Segmentation/", "splits/", "lists/")
"""Where lists of images lie; the second is Pascal VOC's."""


@dataclass(frozen=True)
class Split:
    """Patterns and files of one split."""

    name: str
    images: str
    masks: str | None
    list: str | None = None
    share: float | None = None
    pairs: tuple[tuple[Path, Path], ...] = ()
    """images and their masks"""
    unmasked: int = 0
    """images without one"""
    lonely: int = 0
    """masks without an image"""
    found: frozenset[Path] = frozenset()
    """images, with masks and without"""


@dataclass(frozen=True)
class Layout:
    """What was found in a folder."""

    splits: list[Split]
    group: str | None
    """of ``data.folder.group``"""
    groups: int = 0
    """how many there are"""
    left: Counter[str] = field(default_factory=Counter)
    """folder -> images that are in no split"""


def recognise(root: Path) -> Layout:
    """Find images, their masks and the splits below a folder.

    Raises:
        UserError: there are no images, or no masks, or none that belong together.
    """
    images, masks = find_kinds(root)
    if not images and not masks:
        raise UserError(f"{root.absolute()}: no images in it")
    if not masks:
        raise UserError(_without_masks(root, images))
    pairs = [(i, m, headless) for i in images for m in masks for headless in (False, True)]
    image, mask, headless = min(pairs, key=lambda pair: (-_matching(*pair), _rank(pair[1]), pair[2]))
    if not _matching(image, mask, headless):
        raise UserError(
            f"{root.absolute()}: {sum(len(k.names) for k in images)} images (such as {_example(images)}) and "
            f"{sum(len(k.names) for k in masks)} masks (such as {_example(masks)}), but their names do not belong "
            "together: give a mask the name of its image, or write the patterns yourself (docs/data.md)"
        )
    splits = _splits(root, image, mask, headless)
    layout = _with_shares(root, splits, [n for n in image.names if n.split in ("train", None)])
    found = {path for split in layout.splits for path in split.found}
    paths = [root / name.path for kind in images for name in kind.names]
    left = Counter(path.parent.relative_to(root).as_posix() for path in paths if path not in found)
    return replace(layout, left=left)


def _matching(image: Kind, mask: Kind, headless: bool) -> int:
    return len({_key(n, headless) for n in image.names} & {_key(n, headless) for n in mask.names})


def _key(name: Name, headless: bool) -> tuple[str | None, str, str]:
    return name.split, name.rest, name.core if headless else name.head + name.core


def _rank(mask: Kind) -> int:
    """Which of several kinds of masks of the same images is read: ids rather than colours, never instances."""
    text = f"{mask.place} {mask.tail}".lower()
    return next((rank for word, rank in _RANKS if word in text), 2)


def _example(kinds: list[Kind]) -> str:
    return kinds[0].names[0].path


def _without_masks(root: Path, images: list[Kind]) -> str:
    count = sum(len(kind.names) for kind in images)
    lossy = [k for k in images if _MASK_WORDS.search(f"{k.place} {k.tail}") and {"jpg", "jpeg"} & {*k.suffixes}]
    if lossy:
        return (
            f"{root.absolute()}: {_example(lossy)} looks like a mask but is a JPEG, which blurs classes at every edge: "
            "export the masks again as PNG"
        )
    return (
        f"{root.absolute()}: {count} images (such as {_example(images)}) and no masks. A mask is a PNG of its image's "
        "size and name whose pixels are numbers or colours of classes, such as masks/a.png for images/a.jpg. Label "
        "with CVAT, Label Studio or labelme, export as segmentation masks (PNG) into this folder, and try again"
    )


def _splits(root: Path, image: Kind, mask: Kind, headless: bool) -> list[Split]:
    """Of each split that folders name, or one of all."""
    found = []
    for word, split in dict.fromkeys((name.word, name.split) for name in image.names):
        mine = [n for n in image.names if n.word == word]
        theirs = [n for n in mask.names if n.split == split]
        deep = any(n.rest for n in mine + theirs)
        pattern = _pattern(image, mine, deep, headless)
        masks = _pattern(mask, theirs, deep, headless) if theirs else None
        looked_at = _looked_at(root, Split(split or "all", pattern, masks))
        if looked_at.pairs or split is None or split in SPLITS.values():
            found.append(looked_at)
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(found, key=lambda s: order.get(s.name, 3))


def _pattern(kind: Kind, names: list[Name], deep: bool, headless: bool) -> str:
    place = kind.place.replace("{split}", names[0].word)
    suffixes = sorted({n.suffix.lower().removeprefix(".") for n in names})
    ending = suffixes[0] if len(suffixes) == 1 else f"{{{','.join(suffixes)}}}"
    head = names[0].head if headless and len({n.head for n in names}) == 1 else ""
    return "/".join(part for part in (place, "**" if deep else "", f"{head}*{kind.tail}.{ending}") if part)


def _looked_at(root: Path, split: Split) -> Split:
    """The split with the files that its patterns find."""
    files = OwnSplit(split.name, root, split.images, split.masks, split.list).find()
    masks = files.masks or {}
    pairs = tuple((path, masks[key]) for key, path in files.images.items() if key in masks)
    lonely = len(masks.keys() - files.images.keys() - files.left_keys.keys())
    return replace(
        split,
        found=frozenset(files.images.values()),
        pairs=pairs,
        unmasked=len(files.images) - len(pairs),
        lonely=lonely,
    )


def _with_shares(root: Path, splits: list[Split], names: list[Name]) -> Layout:
    """Train and val where the folder does not have both: by lists that lie there, or by shares."""
    by_name = {split.name: split for split in splits}
    if "train" in by_name and "val" in by_name:
        return Layout(splits, None)
    whole = by_name.get("train") or by_name.get("all") or splits[0]
    others = [split for split in splits if split is not whole and split.name not in SHARES]
    for place in LISTS:
        lists = {
            name: f"{place}{name}.txt" for name in ("train", "val", "test") if (root / f"{place}{name}.txt").is_file()
        }
        if {*SHARES} <= lists.keys() and whole.name == "all":
            listed = [replace(whole, name=name, list=path) for name, path in lists.items()]
            return Layout([_looked_at(root, split) for split in listed], None)
    group, count = _group(names)
    return Layout([*(replace(whole, name=name, share=share) for name, share in SHARES.items()), *others], group, count)


def _group(names: list[Name]) -> tuple[str | None, int]:
    """What keeps images of one drive together: their folder, or the beginning of their names."""
    folders = Counter(n.rest.split("/")[0] for n in names if n.rest)
    if sum(folders.values()) == len(names) and len(folders) >= FEWEST_GROUPS:
        level = names[0].path[: -len(names[0].path.rsplit("/", 1)[-1])].count("/") - names[0].rest.count("/") + 1
        return str(level), len(folders)
    found = [re.search(DRIVE, n.path) for n in names]
    drives = Counter(match.group(1) for match in found if match)
    if all(found) and len(drives) >= FEWEST_GROUPS and min(drives.values()) > 1:
        return DRIVE, len(drives)
    return None, 0
