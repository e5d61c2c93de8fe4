"""How many processors there are for this process, and other processes on all of them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import multiprocessing.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from recyclelora.errors import UserError

LONGEST_TMPDIR = 70
"""Bytes: multiprocessing adds 32 to make the path of a socket."""


def available_cores() -> int:
    """Those it may use (a container or SLURM may grant fewer than the machine has; macOS does not tell)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def short_sockets(*, anew: bool = False) -> None:
    """Give multiprocessing, where ``TMPDIR`` is long, a folder with a short path for its sockets and nothing else.

    Linux limits their paths to 107 bytes; schedulers set longer folders. Processes started from here inherit it.

    Args:
        anew: a folder of this process's own, instead of one inherited

    Raises:
        UserError: there is no folder for them.
    """
    config = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    if anew:
        config.pop("tempdir", None)
    place = tempfile.gettempdir()
    if "tempdir" in config or len(os.fsencode(place)) <= LONGEST_TMPDIR:
        return
    for other in ("/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="pymp-", dir=other)
            config["tempdir"] = folder
            multiprocessing.util.Finalize(None, shutil.rmtree, args=(folder, True), exitpriority=-100)
            return
    raise UserError(f"TMPDIR={place}: too long for sockets; set it to a folder of at most {LONGEST_TMPDIR} characters")


@contextmanager
def process_pool(
    workers: int, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes; after an error or Ctrl-C in the block what has not begun is dropped, and not waited for."""
    # "spawn": forking a process that runs torch's threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer, initargs) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
