"""What a data set needs once before its first use: rendered scenes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from recyclelora.data.datasets import Corrupted, Dataset, StreetsDataset, Subset

Job = tuple[StreetsDataset, int]


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
    # "spawn": forking a process that runs torch's threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for done in as_completed([pool.submit(_render, job) for job in jobs]):
            done.result()
            advance(1)


def _render(job: Job) -> None:
    dataset, index = job
    dataset.load(index)
