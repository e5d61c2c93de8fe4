"""Mapillary Vistas (Neuhold et al., 2017) with its labels v1.2 (the published figures) or v2.0."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.datasets.base import FolderDataset, Request
from recyclelora.data.datasets.files import dataset_folder, found, paired, unlabelled
from recyclelora.data.datasets.mapillary_classes import V12_IDS, V12_NAMES, V20_IDS, V20_NAMES
from recyclelora.data.datasets.upright import upright
from recyclelora.data.labels import IGNORE, lookup_table
from recyclelora.system.errors import UserError

FOLDERS = {"train": "training", "val": "validation", "test": "testing"}


@dataclass(frozen=True)
class Version:
    """One set of Mapillary's labels: class names and train ids by stored id."""

    name: str
    names: list[str]
    train_ids: dict[int, int]

    @property
    def table(self) -> np.ndarray:
        """Stored id -> train id."""
        return lookup_table(self.train_ids, len(self.names))

    def check(self, config: Path) -> None:
        """Refuse a configuration file whose names give other train ids than the table.

        Names may change places where the train id is the same: published lists order the traffic lights differently.

        Raises:
            UserError: not a list of labels, another number of them, or a name that disagrees.
        """
        try:
            names = [label["name"] for label in json.loads(config.read_text(encoding="utf-8"))["labels"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{config}: not Mapillary's list of labels: {error!r}") from error
        if len(names) != len(self.names):
            raise UserError(f"{config}: {len(names)} labels, but {self.name} has {len(self.names)}: another version")
        known = {name: self.train_ids.get(index, IGNORE) for index, name in enumerate(self.names)}
        for index, name in enumerate(names):
            if known.get(name) != self.train_ids.get(index, IGNORE):
                raise UserError(
                    f"{config}: label {index} is {name!r}, where {self.name} has {self.names[index]!r}: "
                    "the ids of these masks are not the ones that are known"
                )


VERSIONS = {"v1.2": Version("v1.2", V12_NAMES, V12_IDS), "v2.0": Version("v2.0", V20_NAMES, V20_IDS)}


def mapillary(request: Request) -> FolderDataset:
    """The variant is the version of the labels, ``v1.2`` (default) or ``v2.0``; ``test`` has no public labels.

    v2.0 needs its ``config_v2.0.json`` and v1.2 uses ``config_v1.2.json`` or ``config.json`` where there is one: names
    that disagree with the tables are refused.
    """
    name, part = request.variant or "v1.2", FOLDERS.get(request.split, request.split)
    layout = f"{part}/images/*.jpg and {part}/{name}/labels/*.png (or {part}/labels/*.png)"
    folder = dataset_folder(request, "mapillary", FOLDERS, layout, VERSIONS)
    version = VERSIONS[name]
    images = found(folder, f"{part}/images/*.jpg")
    if request.split == "test":
        items = upright(folder, unlabelled(images), request.orientation)
        return FolderDataset("mapillary", folder, items, version.table)
    _check_names(folder, version)
    versioned = folder / part / version.name / "labels"
    masks = versioned if versioned.is_dir() else folder / part / "labels"
    items = paired(folder, images, lambda image: masks / f"{image.stem}.png")
    return FolderDataset("mapillary", folder, upright(folder, items, request.orientation), version.table)


def _check_names(folder: Path, version: Version) -> None:
    configs = (folder / f"config_{version.name}.json", folder / "config.json")
    config = next((path for path in configs if path.is_file()), None)
    if config is not None:
        version.check(config)
    elif version.name == "v2.0":
        raise UserError(f"{folder.absolute()}: v2.0 needs config_v2.0.json of the download, to check the ids' names")
