"""The built-in procedural street scenes as a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recyclelora.data import streets
from recyclelora.data.datasets.base import Sample
from recyclelora.data.datasets.files import check_choice

NUM_CLASSES = 19
"""Scenes hold all classes of Cityscapes."""


@dataclass(frozen=True)
class StreetsDataset:
    """The built-in procedural scenes of one look."""

    name: str
    look: str
    split: str
    cache_dir: Path | None

    def __len__(self) -> int:
        return streets.num_scenes(self.look, self.split)

    @property
    def labelled(self) -> bool:
        """Rendered scenes always have masks."""
        return True

    @property
    def classes(self) -> frozenset[int]:
        """All 19 train ids."""
        return frozenset(range(NUM_CLASSES))

    def load(self, index: int) -> Sample:
        """Render one scene, or read it from the cache."""
        image, label = streets.scene(self.look, self.split, index, self.cache_dir)
        return Sample(image, label, f"{self.look}_{self.split}_{index:04d}.png")

    def missing(self) -> list[int]:
        """Scenes that would have to be rendered."""
        return streets.missing(self.look, self.split, self.cache_dir) if self.cache_dir else []

    def entries(self) -> list[str]:
        """The version of the renderer stands for the files."""
        return [f"streets-v{streets.STREETS_VERSION} {self.look} {self.split} {len(self)}"]


def open_streets(split: str, name: str | None, cache_dir: Path | None) -> StreetsDataset:
    """``source_train``, ``source_val`` or the name of a look; ``name`` is the one in results."""
    look, _, part = split.rpartition("_") if split.startswith("source") else (split, "", "val")
    check_choice("streets has no split", split, ("source_train", "source_val", *streets.LOOKS[1:]))
    return StreetsDataset(name or "streets", look, part, cache_dir)
