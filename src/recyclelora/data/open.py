"""From the configured datasets of a pair to open ones: files, corruptions, subsets, a user's own folders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from recyclelora.data.config import DataConfig, DatasetConfig
from recyclelora.data.datasets import (
    Corrupted,
    Dataset,
    FolderDataset,
    OwnSplit,
    StreetsDataset,
    Subset,
    open_dataset,
    own_folder,
    seeded_subset,
)
from recyclelora.data.datasets.account import Account, account
from recyclelora.data.datasets.cityscapes import GENERATED, SHIPPED
from recyclelora.data.datasets.division import Division
from recyclelora.data.datasets.views import layers
from recyclelora.data.decode_cache import kept_decoded
from recyclelora.data.folder import CodingConfig, class_index, parse_colour
from recyclelora.data.labels import IGNORE, by_name, explicit_table, lookup_table
from recyclelora.data.masks import ColourIds, read_ids16
from recyclelora.data.reading import ReadIds
from recyclelora.system.errors import UserError

ADVICE = (
    "set DATA_ROOT or data.root to the folder that holds one folder for each dataset (docs/licences.md: where to get "
    "them); data=streets needs none"
)


def open_all(configs: list[DatasetConfig], data: DataConfig, cache: str) -> list[Dataset]:
    """Open datasets in their order; a UserError lists all that are not there."""
    opened: list[Dataset] = []
    problems: list[str] = []
    for config in configs:
        title = "source_val" if config is data.source_val else config.label
        try:
            opened.append(open_one(config, data, cache, title))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join([*dict.fromkeys(problems), *[ADVICE] * any_download(configs)]))
    return opened


def any_download(configs: Iterable[DatasetConfig]) -> bool:
    """Whether any dataset is not the user's own."""
    return any(config.dataset != "folder" for config in configs)


def open_one(config: DatasetConfig, data: DataConfig, cache: str, title: str | None = None) -> Dataset:
    """Open one dataset: its files, corrupted if that is asked for, and of them a subset.

    ``title`` is its name in results, by which a protocol may know it, too.
    """
    dataset: Dataset
    if config.dataset == "folder":
        dataset = open_own(config.split, data)
    else:
        dataset = open_dataset(
            config.dataset, config.split, root=Path(data.root).expanduser(), name=config.name,
            variant=config.variant, seed=data.subset_seed, cache_dir=Path(cache) / "streets",
            orientation=data.orientation, cityscapes_labels=data.cityscapes_labels,
        )  # fmt: skip
    if isinstance(dataset, FolderDataset | StreetsDataset):
        dataset = replace(dataset, title=title)
        dataset = dataset if config.dataset == "folder" else to_classes(dataset, data)
    dataset = kept_decoded(dataset, Path(cache) / "decoded", data.decode_cache)
    if config.corruption is not None:
        c = config.corruption
        dataset = Corrupted(dataset, c.name, c.severity, c.seed)
    return seeded_subset(dataset, config.subset, data.subset_seed)


def to_classes(dataset: FolderDataset | StreetsDataset, data: DataConfig) -> FolderDataset | StreetsDataset:
    """A dataset read to a run's classes.

    Raises:
        UserError: it has none of them.
    """
    train_ids = by_name(data.classes.names, dataset.class_names, data.classes.contains)
    if train_ids is None:
        return dataset
    if set(train_ids) == {IGNORE}:
        raise UserError(
            f"{dataset.name}: data.classes.names has none of its classes ({', '.join(dataset.class_names)}); "
            "data.classes.contains says what they are here: {<class>: [<class of the dataset>, ...]}"
        )
    return dataset.numbered(train_ids)


def open_own(split: str, data: DataConfig) -> FolderDataset:
    """Open a split of a user's own images and masks."""
    assert data.folder is not None  # the configuration's check
    where = data.folder.splits[split]
    coding = where.coding or data.folder.coding
    ignore = data.classes.ignore_index

    def train_id(given: object) -> int:
        index = class_index(given, data.classes.names, ignore)
        return IGNORE if index is None or index == ignore else index

    read_ids: ReadIds
    if coding.kind == "colours":
        read_ids = colour_ids(coding, data, train_id)
        table = lookup_table({train: train for _, train in read_ids.train_ids}, 0)
    else:
        read_ids = read_ids16
        mapped = {stored: train_id(given) for stored, given in coding.ids.items()}
        table = explicit_table(mapped, len(data.classes.names), {ignore}, ignore_others=coding.others == "ignore")
    drive = {"drive": expression} if (expression := data.folder.drive()) else {}
    return own_folder("folder", own_split(split, data), table, read_ids, orientation=data.orientation, **drive)


def own_split(name: str, data: DataConfig) -> OwnSplit:
    """Where the files of a split of a user's own data are."""
    folder = data.folder
    assert folder is not None  # the configuration's check
    where = folder.splits[name]
    division = None
    if where.share is not None:
        division = Division(folder.divisions()[where.images], data.subset_seed, folder.drive())
    root = Path(folder.root).expanduser()
    return OwnSplit(name, root, where.images, where.masks, where.list, division, tuple(folder.exclude))


def own_files(data: DataConfig) -> Account | None:
    """What became of every file of a user's own folder; None where a pair reads none."""
    asked = {c.split for c in (*data.sources, data.source_val, *data.targets) if c.dataset == "folder"}
    if not asked or data.folder is None:
        return None
    splits = [own_split(name, data) for name in data.folder.splits]
    return account(Path(data.folder.root).expanduser(), splits, asked)


def colour_ids(coding: CodingConfig, data: DataConfig, train_id: Callable[[object], int]) -> ColourIds:
    """The colours of masks: those of ``data.classes``, and what ``coding.colours`` says beside or instead."""
    colours = {(c[0], c[1], c[2]): index for index, c in enumerate(data.classes.colours)}
    for text, given in coding.colours.items():
        colour = parse_colour(text)
        assert colour is not None  # the configuration's check
        colours[colour] = train_id(given)
    return ColourIds(tuple(sorted(colours.items())), coding.others == "ignore")


def describe_datasets(data: DataConfig, opened: list[Dataset]) -> list[dict[str, Any]]:
    """What ``run.json`` tells of every dataset: which part of it was used, and how subsets were drawn.

    Args:
        data: the pair
        opened: its sources, source validation and targets, in this order
    """
    configs = [*data.sources, data.source_val, *data.targets]
    roles = [*["source"] * len(data.sources), "source_val", *["target"] * len(data.targets)]
    records = []
    for role, config, dataset in zip(roles, configs, opened, strict=True):
        subset = dataset if isinstance(dataset, Subset) else None
        drawn = None if subset is None else {
            "of": len(subset.base), "seed": data.subset_seed,
            "indices_sha256": hashlib.sha256(" ".join(map(str, subset.indices)).encode()).hexdigest(),
        }  # fmt: skip
        asked = asdict(config) | {"name": data.title(config), "subset": drawn}
        kind = mask_kinds({"": dataset}).get("")
        records.append(
            {"role": role, **asked, "images": len(dataset), "labelled": dataset.labelled}
            | ({} if kind is None else {"masks": kind})
        )
    return records


def with_first_masks(data: DataConfig, opened: Iterable[Dataset]) -> DataConfig | None:
    """The pair as version 0.1.0 read it where both kinds of Cityscapes' masks are there; None where nothing differs."""
    kinds = mask_kinds({str(number): dataset for number, dataset in enumerate(opened)})
    if data.cityscapes_labels == SHIPPED or GENERATED not in kinds.values():
        return None
    return replace(data, cityscapes_labels=SHIPPED)


def mask_kinds(datasets: Mapping[str, Dataset]) -> dict[str, str]:
    """Which masks are read of the datasets that have several kinds, by the dataset's key."""
    kinds = {}
    for name, dataset in datasets.items():
        *_, base = layers(dataset)
        if isinstance(base, FolderDataset) and base.masks is not None:
            kinds[name] = base.masks
    return kinds
