"""Processes that read and augment ahead of the model, and what the user sees when one of them fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import cv2
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from recyclelora.cores import available_cores
from recyclelora.errors import UserError

T = TypeVar("T")


class Loader(Generic[T]):
    """Batches of a map-style dataset, in the order of ``batches`` whatever the number of workers.

    Workers live for one pass: a training run is one pass, and a pass over an evaluation set is long against the few
    hundredths of a second that a fork takes, so none is kept idle beside the model.

    Args:
        dataset: samples by index.
        batches: lists of indices.
        collate: samples -> batch.
        num_workers: processes; 0 reads in this one. Never more than there are cores: the samples are the same.
        prefetch: batches each worker is ahead, so that a slow file does not stop the model; they wait in shared memory.
        pin_memory: put batches into memory that a GPU copies from while it computes.
    """

    def __init__(
        self,
        dataset: TorchDataset[Any],
        batches: Iterable[list[int]],
        collate: Callable[[list[Any]], T],
        *,
        num_workers: int,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        workers = min(num_workers, available_cores())
        self.loader: DataLoader[Any] = DataLoader(
            dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, pin_memory=pin_memory,
            worker_init_fn=_one_thread, prefetch_factor=prefetch if workers else None,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[T]:
        """Yield the batches.

        Raises:
            UserError: what a worker refused, in its own words, or that a worker was killed.
        """
        try:
            yield from self.loader
        except UserError as error:
            raise UserError(_own_words(str(error))) from None
        except (RuntimeError, OSError, EOFError) as error:
            if not self.loader.num_workers or not _tells_of_a_death(error):
                raise
            raise UserError(
                "a data worker was killed, most likely because memory ran out (RAM, or /dev/shm in a container): "
                "lower trainer.num_workers"
            ) from error


def _one_thread(_: int) -> None:
    """Samples are parallel already; torch limits itself in a worker, OpenCV has to be told."""
    cv2.setNumThreads(0)


def _tells_of_a_death(error: Exception) -> bool:
    """Whether this is torch's word for a killed worker, or what comes of one killed while it handed a batch over."""
    if isinstance(error, RuntimeError):
        return re.search("exited unexpectedly|is killed by signal", str(error)) is not None
    own = str(error).startswith("Caught ")  # the worker lives: reading its files has failed
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not own


def _own_words(text: str) -> str:
    """What the worker said: it comes wrapped in the worker's traceback."""
    return text.rpartition(f"{UserError.__name__}: ")[2].rstrip() if text.startswith("Caught ") else text
