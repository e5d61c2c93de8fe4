"""The images that an adapter looks at before it starts: crops of the sources, or of a named folder; never targets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recyclelora.config.build import calibration_of
from recyclelora.config.run import Config
from recyclelora.data.build import Datasets, build_augmentation, build_datasets
from recyclelora.data.datasets import Dataset, FolderDataset
from recyclelora.data.datasets.files import unlabelled
from recyclelora.data.datasets.own import files_below
from recyclelora.data.datasets.upright import upright
from recyclelora.data.datasets.views import layers
from recyclelora.data.identity import content_digest
from recyclelora.data.images import IMAGE_SUFFIXES
from recyclelora.data.loaders import TrainStream, collate
from recyclelora.data.patterns import is_hidden
from recyclelora.models.shown import ShownImages
from recyclelora.system.errors import UserError

KEY = "adapter.calibration.folder"


@dataclass(frozen=True)
class CalibrationImages:
    """Seeded training crops, without what is mixed in or corrupted, of the sources or of a folder of photographs."""

    config: Config
    stream: TrainStream
    count: int
    labelled: bool
    digest: str
    """of the files they are cut from, how they are read and cut, which they are, and how many"""

    @classmethod
    def of(cls, config: Config, datasets: Datasets, *, always: bool = False) -> CalibrationImages | None:
        """Those that the run's adapter asks for; None where it starts without data, unless ``always`` are some wanted.

        Raises:
            UserError: the folder is not there, has no images, or holds images of a target.
        """
        options = calibration_of(config, always=always)
        if options is None:
            return None
        sources, weights = datasets.sources, [source.weight for source in config.data.sources]
        if options.folder is not None:
            sources, weights = [photographs(Path(options.folder).expanduser(), datasets)], [None]
        stream = TrainStream(sources, weights, build_augmentation(config.data), options.seed)
        cut = [stream.augment, stream.shares, options.seed, options.images, config.data.augment.crop]
        digest = hashlib.sha256("\n".join([*map(content_digest, sources), *map(repr, cut)]).encode()).hexdigest()
        return cls(config, stream, options.images, options.folder is None, digest)

    def describe(self) -> dict[str, Any]:
        """What ``run.json`` tells of them."""
        return {
            "images": self.count,
            "of": [source.name for source in self.stream.sources],
            "crop": list(self.config.data.augment.crop),
            "digest": self.digest,
        }

    def on(self, device: str, progress: Callable[[int, int], None] = lambda count, total: None) -> ShownImages:
        """As `config.build.build_model` takes them, for a model on ``device``."""
        return ShownImages(self.count, self.digest, self._load, self.labelled, device, progress)

    def _load(self, number: int) -> tuple[Tensor, Tensor]:
        return collate([self.stream[number]])

    def __str__(self) -> str:
        return f"{self.count} crops of {', '.join(dict.fromkeys(source.name for source in self.stream.sources))}"


def looked_at(config: Config, device: str) -> ShownImages:
    """The images that a run's adapter looked at, for a model on ``device``; 64 crops of its sources if it did at none.

    Raises:
        UserError: they are not on this machine.
    """
    datasets = build_datasets(config.data, config.cache)
    images = CalibrationImages.of(config, datasets, always=True)
    assert images is not None
    return images.on(device)


def photographs(folder: Path, datasets: Datasets) -> Dataset:
    """A folder of images without masks.

    Raises:
        UserError: it is not there, has no images, or holds images that a target is scored on.
    """
    if not folder.is_dir():
        raise UserError(f"{KEY}={folder}: no such folder; it is to hold photographs")
    files = [
        path for path in files_below(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.relative_to(folder).as_posix())
    ]  # fmt: skip
    if not files:
        raise UserError(f"{KEY}={folder}: no image in it ({', '.join(IMAGE_SUFFIXES)})")
    chosen = {path.resolve() for path in files}
    for name, dataset in datasets.scored.items():
        if chosen & set(_image_files(dataset)):
            raise UserError(
                f"{KEY}={folder}: holds images of {name}, which the run is scored on; name a folder without"
            )
    items = upright(folder, unlabelled(files), None)
    return FolderDataset("calibration", folder, items, np.zeros(256, np.uint8))


def _image_files(dataset: Dataset) -> list[Path]:
    *_, base = layers(dataset)
    return [item.image.resolve() for item in base.items] if isinstance(base, FolderDataset) else []
