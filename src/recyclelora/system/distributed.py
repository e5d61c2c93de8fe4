"""Numbers that concern all processes of a run."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


def several() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gathered(mine: list[T]) -> list[T]:
    """What all processes have found, in the order of their ranks."""
    if not several():
        return mine
    every: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, mine)
    return [found for part in every for found in part]


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes; the tensor itself where there is only one.

    A loss that divides a process's own sum by this mean of the counts is, once the gradients have been averaged, the
    loss of the whole batch on one process.
    """
    if not several():
        return value
    total = value.detach().clone().float()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def whole(value: Tensor) -> Tensor:
    """All of a tensor of which every process holds a part (a DTensor); any other as it is. All processes must ask."""
    gather = getattr(value, "full_tensor", None)
    found: Tensor = value if gather is None else gather()
    return found


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of ``like``; of a DTensor, which processes share, this process's part in another."""
    if not hasattr(like, "full_tensor") or hasattr(value, "full_tensor"):
        return value.to(like.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # None: every process has the whole and cuts its own part out
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def is_first() -> bool:
    """Whether this is the only process, or the first of several."""
    return not several() or dist.get_rank() == 0


def process_share(count: int) -> range:
    """Which of ``count`` things are this process's."""
    return range(dist.get_rank(), count, dist.get_world_size()) if several() else range(count)


@torch.no_grad()
def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, the same bits in each; the tensor itself where there is only one."""
    if not several():
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def from_first(value: T) -> T:
    """What the first process has, in all of them."""
    if not several():
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]
