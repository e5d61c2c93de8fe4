"""The built-in procedural street scenes as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from recyclelora.data import streets
from recyclelora.data.datasets.base import Sample, classes_entry
from recyclelora.data.datasets.files import check_choice
from recyclelora.data.labels import CITYSCAPES_CLASSES, IGNORE, renumbered
from recyclelora.system.filecache import FileCache

NUM_CLASSES = 19
"""Scenes hold all classes of Cityscapes."""
_IS_TRAIN_ID = np.isin(np.arange(256), [*range(NUM_CLASSES), IGNORE])


@dataclass(frozen=True)
class SceneCache(FileCache[streets.Scene]):
    """Scenes as lossless PNG, RGB + train id: 720 files of 0.2 to 0.35 MB each; those of other versions leave first."""

    title = "streets cache"
    suffix = ".png"
    durable = False

    directory: Path
    max_bytes: int = 300 * 10**6

    def encode(self, value: streets.Scene) -> Sequence[bytes]:
        """A PNG whose fourth channel is the train id."""
        image, labels = value
        return [cv2.imencode(".png", np.dstack([image[..., ::-1], labels]))[1].tobytes()]

    def decode(self, data: bytearray) -> streets.Scene:
        """Image and mask, if the file is a scene."""
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
        if image is None or image.shape != (*streets.SIZE, 4) or image.dtype != np.uint8:
            raise ValueError("no scene")
        labels: np.ndarray = np.ascontiguousarray(image[..., 3])
        if not _IS_TRAIN_ID[labels].all():
            raise ValueError("no train ids")
        return np.ascontiguousarray(image[..., 2::-1]), labels


@dataclass(frozen=True)
class StreetsDataset:
    """The built-in procedural scenes of one look."""

    name: str
    look: str
    split: str
    cache: SceneCache | None
    title: str | None = None
    """the name in results, where it is another one"""
    train_ids: tuple[int, ...] | None = None
    """a run's train id in the place of each of the 19, where the run has another class list"""
    class_names: ClassVar[tuple[str, ...]] = CITYSCAPES_CLASSES

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
        found = None if self.cache is None else self.cache.load(self._name(index))
        if found is None:
            found = streets.render(self.look, self.split, index)
            if self.cache is not None:
                self.cache.store(self._name(index), found)
        image, label = found
        if self.train_ids is not None:
            label = renumbered(label, self.train_ids)
        return Sample(image, label, f"{self.look}_{self.split}_{index:04d}.png")

    def missing(self) -> list[int]:
        """Scenes that would have to be rendered."""
        if self.cache is None:
            return []
        return [index for index in range(len(self)) if not self.cache.path(self._name(index)).is_file()]

    def _name(self, index: int) -> str:
        """Of a scene in the cache."""
        return f"streets-v{streets.STREETS_VERSION}/{self.look}_{self.split}/{index:03d}"

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
    return StreetsDataset(name or "streets", look, part, None if cache_dir is None else SceneCache(cache_dir))
