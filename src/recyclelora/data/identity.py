"""What a dataset holds and how its files become samples, as digests: for runs, evaluations and caches."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recyclelora.data.datasets.base import Dataset, FolderDataset
from recyclelora.data.datasets.views import layers

NOT_READING = ("items", "indices", "root", "name", "cache", "cache_dir", "masks", "title", "train_ids", "class_names")
"""Fields that say which samples there are, or where they lie, but not how they are read."""


def how_it_reads(dataset: Any) -> str:
    """The id tables and reading functions of a dataset, through its wrappers."""
    every = dataclasses.fields(dataset)
    fields = [f for f in every if f.name not in NOT_READING]
    if [field.name for field in fields] == ["base"]:
        base = how_it_reads(dataset.base)
        # a subset or a cache reads nothing itself; what has nothing but its base does something to each sample
        return base if len(every) > 1 else f"{type(dataset).__name__}({base})"
    return " ".join(f"{field.name}={_text(getattr(dataset, field.name))}" for field in fields)


def _text(value: Any) -> str:
    """A text that is the same in every process and differs where the value differs."""
    if isinstance(value, np.ndarray):
        return f"{value.shape}{value.dtype}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}({how_it_reads(value)})"
    if isinstance(value, Path):
        return ""
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


@dataclasses.dataclass(frozen=True)
class Files:
    """Every file of a run's sets as it is now: ``<dataset>/<path> <size>``, set by set.

    ``as_then`` of the methods gives files another size than they have: that of before they were mended.
    """

    sources: Sequence[Sequence[str]]
    scored: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, sources: Iterable[Dataset], scored: Mapping[str, Dataset]) -> Files:
        """Look at every file.

        Raises:
            UserError: one is not there, such as a link to nothing.
        """
        return cls([_lines(d) for d in sources], {name: _lines(d) for name, d in scored.items()})

    def trained_on(self, as_then: Mapping[str, int] | None = None) -> str:
        """sha256 of what a training reads: the sources, each file in its set; scored sets are no part of it."""
        return _sha256(
            f"source {number}: {line}"
            for number, lines in enumerate(self.sources)
            for line in sorted(_as_they_were(lines, as_then))
        )

    def all_together(self, as_then: Mapping[str, int] | None = None) -> str:
        """sha256 of sources and scored sets in one list, as version 0.1.0 identified the data of a run."""
        every = [line for lines in (*self.sources, *self.scored.values()) for line in lines]
        return _sha256(sorted(_as_they_were(every, as_then)))

    def scored_digests(self) -> dict[str, str]:
        """sha256 of every scored set."""
        return {name: _sha256(sorted(lines)) for name, lines in self.scored.items()}

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of files, by their name."""
        wanted = set(names)
        every = (line.rpartition(" ") for lines in (*self.sources, *self.scored.values()) for line in lines)
        return {name: int(size) for name, _, size in every if name in wanted}


def content_digest(dataset: Dataset) -> str:
    """sha256 of a dataset's name, files and subset, and of how they are read: what any figure about it depends on."""
    return _sha256([how_it_reads(dataset), *_lines(dataset)])


def state_on_disk(dataset: Dataset) -> str:
    """sha256 over place, size and time of change of every file: finer than content, for what is kept for a while."""
    *_, base = layers(dataset)
    if not isinstance(base, FolderDataset):
        return ""
    paths = (path for item in base.items for path in (item.image, item.label) if path is not None)
    return _sha256(file_state(path) for path in paths)


def file_state(path: Path) -> str:
    """Place, size and time of change of a file."""
    try:
        status = path.stat()
    except OSError:  # whoever reads it says so
        return f"{path.absolute()} missing"
    return f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"


def _lines(dataset: Dataset) -> list[str]:
    return [f"{dataset.name}/{entry}" for entry in dataset.entries()]


def _as_they_were(lines: Sequence[str], as_then: Mapping[str, int] | None) -> Sequence[str]:
    if not as_then:
        return lines
    parts = (line.rpartition(" ") for line in lines)
    return [f"{name} {as_then.get(name, size)}" for name, _, size in parts]


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
