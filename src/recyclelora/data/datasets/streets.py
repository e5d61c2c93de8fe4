"""The built-in procedural street scenes as a dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from recyclelora.data import streets
from recyclelora.data.datasets.base import Sample, classes_entry
from recyclelora.data.datasets.files import check_choice
from recyclelora.data.labels import IGNORE, renumbered

NUM_CLASSES = 19
"""Scenes hold all classes of Cityscapes."""


@dataclass(frozen=True)
class StreetsDataset:
    """The built-in procedural scenes of one look."""

    name: str
    look: str
    split: str
    cache_dir: Path | None
    title: str | None = None
    """the name in results, where it is another one"""
    train_ids: tuple[int, ...] | None = None
    """a run's train id in the place of each of the 19, where the run has another class list"""

    def __len__(self) -> int:
        return streets.num_scenes(self.look, self.split)

    @property
    def label(self) -> str:
        """The name it carries in results."""
        return self.title or self.name

    @property
    def labelled(self) -> bool:
        """Rendered scenes always have masks."""
        return True

    @property
    def classes(self) -> frozenset[int]:
        """All 19 train ids, or those of the run's class list."""
        return frozenset(range(NUM_CLASSES)) if self.train_ids is None else frozenset(self.train_ids) - {IGNORE}

    def numbered(self, train_ids: tuple[int, ...]) -> StreetsDataset:
        """The same scenes with other train ids: ``train_ids[t]``, or 255, in the place of t."""
        return replace(self, train_ids=train_ids)

    def load(self, index: int) -> Sample:
        """Render one scene, or read it from the cache."""
        image, label = streets.scene(self.look, self.split, index, self.cache_dir)
        if self.train_ids is not None:
            label = renumbered(label, self.train_ids)
        return Sample(image, label, f"{self.look}_{self.split}_{index:04d}.png")

    def missing(self) -> list[int]:
        """Scenes that would have to be rendered."""
        return streets.missing(self.look, self.split, self.cache_dir) if self.cache_dir else []

    def entries(self) -> list[str]:
        """The version of the renderer stands for the files."""
        scenes = f"streets-v{streets.STREETS_VERSION} {self.look} {self.split} {len(self)}"
        return [scenes, *classes_entry(self.train_ids)]

    def drives(self) -> list[str] | None:
        """Scenes are drawn independently."""
        return None


def open_streets(split: str, name: str | None, cache_dir: Path | None) -> StreetsDataset:
    """``source_train``, ``source_val`` or the name of a look; ``name`` is the one in results."""
    look, _, part = split.rpartition("_") if split.startswith("source") else (split, "", "val")
    check_choice("streets has no split", split, ("source_train", "source_val", *streets.LOOKS[1:]))
    return StreetsDataset(name or "streets", look, part, cache_dir)
