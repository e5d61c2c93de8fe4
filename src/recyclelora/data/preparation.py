"""What is done once for a data set, before its first use: rendered scenes, decoded samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed

from recyclelora.cores import available_cores, process_pool
from recyclelora.data.datasets import Corrupted, Dataset, StreetsDataset, Subset
from recyclelora.data.datasets.base import View
from recyclelora.data.decode_cache import CachedDataset

Job = tuple[StreetsDataset, int]
Address = tuple[Dataset, int]


def scenes_to_render(datasets: Sequence[Dataset]) -> list[Job]:
    """Every scene of the given sets, or of their subsets, that is not in the cache."""
    jobs: list[Job] = []
    for dataset in datasets:
        base, wanted = (dataset.base, dataset.indices) if isinstance(dataset, Subset) else (dataset, None)
        base = base.base if isinstance(base, Corrupted) else base
        if isinstance(base, StreetsDataset):
            jobs += [(base, index) for index in base.missing() if wanted is None or index in wanted]
    return list(dict.fromkeys(jobs))


def render_scenes(jobs: Sequence[Job], advance: Callable[[int], None]) -> None:
    """Render scenes into the cache on all cores; ``advance`` is told of each that is done."""
    _load_all(jobs, advance)


def samples_to_decode(datasets: Sequence[Dataset]) -> list[Address]:
    """Every sample that a decode cache would keep."""
    return [
        (dataset, index)
        for dataset in datasets
        if any(isinstance(layer, CachedDataset) for layer in _layers(dataset))
        for index in range(len(dataset))
    ]


def decode(samples: Sequence[Address], advance: Callable[[int], None]) -> None:
    """Read samples through their decode cache on all cores; ``advance`` is told of each that is done."""
    _load_all(samples, advance)


def _layers(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and what it is a view of."""
    yield dataset
    if isinstance(dataset, View):
        yield from _layers(dataset.base)


def _load_all(samples: Sequence[Address], advance: Callable[[int], None]) -> None:
    with process_pool(available_cores()) as pool:
        for done in as_completed([pool.submit(_load, *sample) for sample in samples]):
            done.result()
            advance(1)


def _load(dataset: Dataset, index: int) -> None:
    dataset.load(index)
