"""Processes that read and augment ahead of the model, and what the user sees when one of them fails."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cv2
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from recyclelora.system.cores import available_cores, leave_signals_to_parent, signals_held
from recyclelora.system.errors import UserError

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
            _Guarded(dataset), batch_sampler=batches, num_workers=workers, collate_fn=_Collated(collate),
            pin_memory=pin_memory, worker_init_fn=_begin, prefetch_factor=prefetch if workers else None,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[T]:
        """Yield the batches.

        Raises:
            UserError: what a worker refused, or that a worker was killed.
        """
        try:
            for batch in _started(self.loader):
                if isinstance(batch, _Refused):
                    raise batch.error
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            if not self.loader.num_workers or not _tells_of_a_death(error):
                raise
            raise UserError(
                "a data worker was killed, most likely because memory ran out (RAM, or /dev/shm in a container): "
                "lower trainer.num_workers"
            ) from error


@dataclass(frozen=True)
class _Refused:
    """What stands in a sample's or a batch's place where a file cannot be used."""

    error: UserError


@dataclass(frozen=True)
class _Guarded(TorchDataset[Any]):
    """A dataset whose refusals come back as they are: torch would wrap an error into its worker's traceback."""

    dataset: TorchDataset[Any]

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return _Refused(error)


@dataclass(frozen=True)
class _Collated:
    """Collates samples; of a batch with refused ones stays the first refusal."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Any:
        refused = [sample for sample in samples if isinstance(sample, _Refused)]
        return refused[0] if refused else self.collate(samples)


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator, with workers that leave signals to this process.

    torch would raise a worker's death at whatever line this process is, also inside a checkpoint's write; without its
    handler the death is told where the next batch is asked for.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD)
    with signals_held():
        batches = iter(loader)
    if main and loader.num_workers:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return batches


def _begin(_: int) -> None:
    """Samples are parallel already; torch limits itself in a worker, OpenCV has to be told."""
    leave_signals_to_parent()
    cv2.setNumThreads(0)


def _tells_of_a_death(error: Exception) -> bool:
    """Whether this is torch's word for a killed worker, or what comes of one killed while it handed a batch over."""
    if isinstance(error, RuntimeError):
        return re.search("exited unexpectedly|is killed by signal", str(error)) is not None
    own = str(error).startswith("Caught ")  # the worker lives: reading its files has failed
    return isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not own
