"""Datasets as they are downloaded: which files belong together, and how their labels are read.

A dataset is a list of :class:`Item`; reading one gives an image and a mask of train ids. Nothing is converted and
nothing is written beside the user's data. One file a dataset family; each reader is a function of a :class:`Request`.
Installed packages add theirs.
"""

from __future__ import annotations

from pathlib import Path

from recyclelora.data.config import DATASETS, READER_GROUP
from recyclelora.data.datasets.acdc import acdc, dark_zurich
from recyclelora.data.datasets.base import (
    Dataset,
    FolderDataset,
    Item,
    Reader,
    Request,
    Sample,
    digest,
)
from recyclelora.data.datasets.bdd100k import bdd100k
from recyclelora.data.datasets.camvid import camvid
from recyclelora.data.datasets.cityscapes import cityscapes, cityscapes_c, foggy_cityscapes, rainy_cityscapes
from recyclelora.data.datasets.gta import gta
from recyclelora.data.datasets.idd import idd, idd_lite
from recyclelora.data.datasets.kitti import kitti
from recyclelora.data.datasets.mapillary import mapillary
from recyclelora.data.datasets.muses import muses
from recyclelora.data.datasets.own import OwnSplit, own_folder
from recyclelora.data.datasets.streets import StreetsDataset, open_streets
from recyclelora.data.datasets.synthia import synthia
from recyclelora.data.datasets.urbansyn import urbansyn
from recyclelora.data.datasets.views import Corrupted, HalfSize, Subset, seeded_subset
from recyclelora.data.datasets.wilddash import railsem19, wilddash
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import plugins

__all__ = [
    "READERS",
    "Corrupted",
    "Dataset",
    "FolderDataset",
    "HalfSize",
    "Item",
    "OwnSplit",
    "Request",
    "Sample",
    "StreetsDataset",
    "Subset",
    "digest",
    "open_dataset",
    "own_folder",
    "seeded_subset",
]

READERS: dict[str, Reader] = {
    "acdc": acdc,
    "bdd100k": bdd100k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "cityscapes_c": cityscapes_c,
    "dark_zurich": dark_zurich,
    "foggy_cityscapes": foggy_cityscapes,
    "gta": gta,
    "idd": idd,
    "idd_lite": idd_lite,
    "kitti": kitti,
    "mapillary": mapillary,
    "muses": muses,
    "railsem19": railsem19,
    "rainy_cityscapes": rainy_cityscapes,
    "synthia": synthia,
    "urbansyn": urbansyn,
    "wilddash": wilddash,
}
"""The folder's name below the root, and who reads it."""


def open_dataset(
    dataset: str,
    split: str,
    *,
    root: Path,
    name: str | None = None,
    variant: str | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    orientation: str | None = None,
    cityscapes_labels: str = "labelIds",
) -> Dataset:
    """Open one split of one dataset.

    Args:
        dataset: ``streets``, one of :data:`READERS`, or what an installed package reads.
        split: as the dataset defines it; for ``streets`` ``source_train``, ``source_val`` or the name of a look.
        root: the folder that holds one folder for each dataset.
        name: the name in results, for ``streets`` only; by default the dataset's.
        variant: of a dataset that has several: a condition, a fog density, a corruption, a version of the labels.
        seed: of the held-out splits.
        cache_dir: where rendered scenes are kept; None keeps none.
        orientation: ``turned`` or ``stored``: how masks lie under photographs where sizes cannot tell.
        cityscapes_labels: ``labelIds`` or ``labelTrainIds``: which is read where both are there.

    Raises:
        UserError: unknown dataset, split or variant, or files that are not there.
    """
    if dataset == "streets":
        return open_streets(split, name, cache_dir)
    readers = READERS if dataset in READERS else READERS | plugins(READER_GROUP, DATASETS)
    if dataset not in readers:
        raise UserError(f"unknown dataset {dataset!r}; known: folder, streets, {', '.join(readers)}")
    opened = readers[dataset](Request(root, split, variant, seed, orientation, cityscapes_labels))
    if not isinstance(opened, FolderDataset):  # what a run does with a dataset's classes and files is written for these
        raise UserError(f"dataset {dataset!r}: its reader must return a FolderDataset, not {type(opened).__name__}")
    return opened
