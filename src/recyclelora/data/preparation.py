"""What is done once for a data set, before its first use: rendered scenes, decoded samples, a look at the labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import as_completed

import numpy as np

from recyclelora.data.datasets import Dataset, StreetsDataset
from recyclelora.data.datasets.views import layers, unwrapped
from recyclelora.data.decode_cache import CachedDataset
from recyclelora.data.labels import IGNORE, UNKNOWN
from recyclelora.data.transforms import class_counts
from recyclelora.system.cores import available_cores, process_pool
from recyclelora.system.errors import UserError

LOOKED_AT = 16
"""Samples that are looked at in this process before the others are looked at on all cores."""

Job = tuple[StreetsDataset, int]
Address = tuple[Dataset, int]


def scenes_to_render(datasets: Sequence[Dataset]) -> list[Job]:
    """Every scene of the given sets, or of their subsets, that is not in the cache."""
    jobs: list[Job] = []
    for dataset in datasets:
        base, wanted = unwrapped(dataset, range(len(dataset)))
        if isinstance(base, StreetsDataset):
            jobs += [(base, index) for index in base.missing() if index in wanted]
    return list(dict.fromkeys(jobs))


def render_scenes(jobs: Sequence[Job], advance: Callable[[int], None]) -> None:
    """Render scenes into the cache on all cores; ``advance`` is told of each that is done."""
    _load_all(jobs, advance)


def samples_to_decode(datasets: Sequence[Dataset]) -> list[Address]:
    """Every sample that a decode cache would keep."""
    return [
        (dataset, index)
        for dataset in datasets
        if any(isinstance(layer, CachedDataset) for layer in layers(dataset))
        for index in range(len(dataset))
    ]


def decode(samples: Sequence[Address], advance: Callable[[int], None]) -> None:
    """Read samples through their decode cache on all cores; ``advance`` is told of each that is done."""
    _load_all(samples, advance)


def check_labels(sources: Sequence[Dataset], classes: Sequence[str]) -> None:
    """Refuse to train where there is nothing to tell apart.

    As many samples are read as it takes to see two classes: nearly always one.

    Args:
        sources: that are trained on
        classes: names by train id

    Raises:
        UserError: all samples of all sources show fewer than two classes.
    """
    every = [(source, index) for source in sources for index in range(len(source))]
    seen: set[int] = set()
    for address in every[:LOOKED_AT]:
        seen |= _classes(*address)
        if len(seen) > 1:
            return
    with process_pool(available_cores()) as pool:
        jobs = [pool.submit(_classes, *address) for address in every[LOOKED_AT:]]
        for done in as_completed(jobs):
            seen |= done.result()
            if len(seen) > 1:
                for job in jobs:
                    job.cancel()
                return
    raise UserError(nothing_to_learn(len(every), seen, classes))


def nothing_to_learn(images: int, seen: Collection[int], classes: Sequence[str]) -> str:
    """What to say of so many training images that show fewer than two classes.

    Args:
        images: how many
        seen: the train ids that they show
        classes: names by train id
    """
    held = "".join(f"only one class, {classes[train_id]}" for train_id in seen) or "no labelled pixel"
    return (
        f"the {images} training images show {held}: there is nothing to learn. The id {IGNORE} marks unlabelled pixels "
        "unless data.folder.coding.ids gives it a class, as masks of 0 and 255 need: {0: background, 255: ...}"
    )


def _classes(dataset: Dataset, index: int) -> set[int]:
    """The train ids that a sample shows; none where it cannot be read, which training says."""
    try:
        counts = class_counts(dataset.load(index).label)
    except UserError:
        return set()
    return {int(train_id) for train_id in np.flatnonzero(counts[:UNKNOWN])}


def _load_all(samples: Sequence[Address], advance: Callable[[int], None]) -> None:
    with process_pool(available_cores()) as pool:
        for done in as_completed([pool.submit(_load, *sample) for sample in samples]):
            done.result()
            advance(1)


def _load(dataset: Dataset, index: int) -> None:
    dataset.load(index)
