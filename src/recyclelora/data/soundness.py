"""Whether files can be used, by their sizes and headers: what a run asks before its first step.

A full look at every pixel is what ``inspect_data.py`` takes. Here a file is only read whole where its beginning or end
looks wrong, or where a mask and its image are not equally large; the dataset's own reader then decides.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from recyclelora.data.datasets.base import Dataset, FolderDataset, Item
from recyclelora.data.datasets.views import unwrapped
from recyclelora.data.headers import JPEG, PNG, read_header
from recyclelora.data.identity import file_state, how_it_reads
from recyclelora.system.errors import BrokenFile, UserError
from recyclelora.system.filecache import FileCache

END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
END_OF_JPEG = b"\xff\xd9"
TRANSPOSED = 5
"""Orientations from here on exchange height and width."""
THREADS = 8
"""They wait for the disk, or for the network behind it."""

Address = tuple[FolderDataset, int]


@dataclass(frozen=True)
class SoundFiles(FileCache[bool]):
    """Empty files: marks of data that were found sound, so that the next run with the same files need not look."""

    title = "marks of sound files"

    directory: Path
    max_bytes: int = 1

    def encode(self, value: bool) -> Sequence[bytes]:
        """Nothing: that the file is there says it."""
        return []

    def decode(self, data: bytearray) -> bool:
        """Whatever is in it."""
        return True

    def know(self, datasets: Sequence[Dataset]) -> bool:
        """Whether these very files, unchanged since and read as they were, were found sound before."""
        return self.load(_state_of(datasets)) is not None

    def remember(self, datasets: Sequence[Dataset]) -> None:
        """Spare the next run with the same files the look at them."""
        self.store(_state_of(datasets), True)


def sound_files(cache: str) -> SoundFiles:
    """The marks below a run's cache."""
    return SoundFiles(Path(cache) / "sound_files")


def unusable_files(datasets: Iterable[Dataset], advance: Callable[[int], None]) -> list[BrokenFile]:
    """What cannot be used of all samples of the given sets; ``advance`` is told of samples done."""
    samples = samples_of(datasets)
    first = {id(dataset): index for dataset, index in _first_of_each(samples)}  # shows what holds for all

    def look(address: Address) -> BrokenFile | None:
        dataset, index = address
        if first[id(dataset)] != index and _looks_sound(dataset.items[index]):
            return None
        try:
            dataset.load(index)
        except UserError as error:
            return error if isinstance(error, BrokenFile) else BrokenFile(str(error))
        return None

    found = []
    with ThreadPoolExecutor(THREADS) as pool:
        for error in pool.map(look, samples):
            advance(1)
            if error is not None:
                found.append(error)
    return found


def samples_of(datasets: Iterable[Dataset]) -> list[Address]:
    """Every sample that lies in files, each once."""
    every: dict[tuple[str, Path, Path | None], Address] = {}
    for dataset in datasets:
        base, indices = unwrapped(dataset, range(len(dataset)))
        if isinstance(base, FolderDataset):
            reading = how_it_reads(base)
            every |= {(reading, base.items[i].image, base.items[i].label): (base, i) for i in indices}
    return list(every.values())


def _first_of_each(samples: Sequence[Address]) -> list[Address]:
    """The first sample of each dataset."""
    return list({id(dataset): (dataset, index) for dataset, index in reversed(samples)}.values())


def _state_of(datasets: Sequence[Dataset]) -> str:
    """A digest of all files, their sizes and times of change, and of how they are read."""
    samples = samples_of(datasets)
    reading = {id(dataset): how_it_reads(dataset) for dataset, _ in _first_of_each(samples)}
    lines = []
    for dataset, index in samples:
        item = dataset.items[index]
        states = (file_state(path) for path in (item.image, item.label) if path is not None)
        lines.append(" ".join((reading[id(dataset)], str(item.turn), *states)))
    text = "\n".join(lines)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _looks_sound(item: Item) -> bool:
    """Whether image and mask begin and end as they should and are equally large."""
    size = _size(item.image)
    if size is None or item.label is None:
        return size is not None
    return _size(item.label) == (size if item.turn < TRANSPOSED else size[::-1])


def _size(path: Path) -> tuple[int, int] | None:
    """(H, W) by the header; None where the file does not begin and end as it should."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            head = file.read(len(PNG) + 16)
            file.seek(-min(64, file.seek(0, 2)), 2)
            tail = file.read()
    except OSError:
        return None
    if head.startswith(PNG):
        whole = tail.endswith(END_OF_PNG) and head[12:16] == b"IHDR"
        return struct.unpack_from(">II", head, 16)[::-1] if whole else None
    if head.startswith(JPEG) and END_OF_JPEG not in tail:
        return None
    header = read_header(path)
    return None if header is None else header.size
