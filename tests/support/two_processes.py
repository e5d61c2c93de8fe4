"""A function in two processes of one group, as a launcher would start them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing as mp
from torch.distributed import FileStore, barrier, init_process_group


def in_two_processes(folder: Path, work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work(rank, *arguments)`` in both; it must be importable. ``folder`` must be new to them."""
    mp.start_processes(_begin, (str(folder), work, arguments), nprocs=2, start_method="spawn")


def _begin(rank: int, folder: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    init_process_group("gloo", store=FileStore(f"{folder}/store", 2), rank=rank, world_size=2)
    work(rank, *arguments)
    barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # torch's threads at times abort a process that destroys its group and ends as others do
