"""One sample: everything that is wrong with its two files, how many pixels of each class, and what it looks like."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recyclelora.data.datasets import Dataset, FolderDataset, Item
from recyclelora.data.datasets.base import fits, misfit
from recyclelora.data.datasets.views import unwrapped
from recyclelora.data.decoding import oddity, read_bytes
from recyclelora.data.headers import GREY, read_header
from recyclelora.data.labels import IGNORE, UNKNOWN
from recyclelora.data.orientation import UPRIGHT, turned
from recyclelora.data.patterns import printable
from recyclelora.data.reading import read_image
from recyclelora.system.errors import UserError

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Defect:
    """Something wrong with a file or a dataset; an ``error`` would stop or spoil a run, a ``warning`` may be meant."""

    severity: str
    kind: str
    dataset: str
    file: str
    detail: str


@dataclass
class Scan:
    """What was found in one sample.

    Attributes:
        name: of the sample.
        size: (H, W) of the image; None where it cannot be read.
        counts: pixels of each train id, (256,).
        pixels: sha256 of the decoded image: equal pictures are equal whatever their encoding.
        bits: of a grey PNG mask; None for masks that are no grey PNG.
        defects: of its files.
    """

    name: str
    size: tuple[int, int] | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    pixels: str | None = None
    bits: int | None = None
    defects: list[Defect] = field(default_factory=list)


def scan(dataset: Dataset, index: int, label: str) -> Scan:
    """Look at one sample of a dataset.

    Args:
        dataset: any dataset; files are looked at one by one where it has files
        index: of the sample
        label: the dataset's name in the report
    """
    base, (position,) = unwrapped(dataset, [index])
    if isinstance(base, FolderDataset):
        return _scan_files(base, base.items[position], label)
    try:
        sample = dataset.load(index)
    except UserError as error:
        return Scan(str(index), defects=[Defect(ERROR, "unreadable", label, str(index), str(error))])
    result = Scan(sample.name, sample.label.shape[:2], pixels=_fingerprint(sample.image))
    result.counts += np.bincount(sample.label.ravel(), minlength=256)
    return result


def _scan_files(dataset: FolderDataset, item: Item, label: str) -> Scan:
    result = Scan(relative_name(item.image, dataset.root))

    def add(severity: str, kind: str, path: Path, detail: str) -> None:
        result.defects.append(Defect(severity, kind, label, relative_name(path, dataset.root), detail))

    try:
        image = turned(read_image(item.image), item.turn)
        result.size = (image.shape[0], image.shape[1])
        result.pixels = _fingerprint(image)
        complaint = oddity(read_bytes(item.image))
        if complaint is not None:
            add(WARNING, "odd JPEG", item.image, f"{complaint}; read all the same")
        header = read_header(item.image)
        if header is not None and header.orientation != UPRIGHT:
            fate = "turned" if item.turn != UPRIGHT else "read as stored, as its mask lies"
            add(WARNING, "EXIF orientation", item.image, f"orientation {header.orientation}: {fate}")
    except UserError as error:
        add(ERROR, "unreadable image", item.image, _reason(error, item.image))
    if item.label is None:
        return result
    stored = read_header(item.label)
    result.bits = stored.bits if stored is not None and stored.colour == GREY else None
    try:
        ids = dataset.read_ids(item.label, dataset.table)
    except UserError as error:
        add(ERROR, "unreadable mask", item.label, _reason(error, item.label))
        return result
    train_ids = dataset.table[ids]
    result.counts += np.bincount(train_ids.ravel(), minlength=256)
    if result.counts[UNKNOWN]:
        unknown = np.unique(ids[train_ids == UNKNOWN])
        shown = ", ".join(map(str, unknown[:8])) + (", ..." if len(unknown) > 8 else "")
        add(ERROR, "unknown ids", item.label, f"{shown} in {result.counts[UNKNOWN]:,} pixels")
    elif result.counts[IGNORE] == train_ids.size:
        add(WARNING, "nothing labelled", item.label, "every pixel is ignored")
    if result.size is not None and result.size != train_ids.shape:
        (high, wide), (height, width) = train_ids.shape, result.size
        if fits(train_ids.shape, result.size, nearly=dataset.nearly):
            words = f"{wide}x{high}, its image {width}x{height} pixels: cut or padded"
            add(WARNING, "size mismatch", item.label, words)
        else:
            add(ERROR, "size mismatch", item.label, misfit(train_ids.shape, result.size))
    return result


def relative_name(path: Path, root: Path) -> str:
    """A file's path below its dataset's folder, as it can be printed."""
    return printable(path.relative_to(root) if path.is_relative_to(root) else path)


def _reason(error: UserError, path: Path) -> str:
    """A reader's words without the path that they begin with."""
    return str(error).removeprefix(f"{path}: ")


def _fingerprint(image: np.ndarray) -> str:
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
