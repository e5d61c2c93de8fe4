"""A segmenter shared out over processes: fully sharded data parallel (Zhao et al., 2023, arXiv 2304.11277), by torch.

Every process keeps its part of each parameter, frozen or not, and so of gradients and of the optimizer's state. A block
is gathered when it runs, forwards or backwards, and its other parts are let go behind it; what lies around the blocks,
decoder included, is gathered for the whole forward. Between two forwards parameters are DTensors; those that are single
numbers, of which there is nothing to share, stay whole and have their gradients averaged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from recyclelora.models.segmenter import Segmenter
from recyclelora.system.distributed import mean_over_processes


def shard(segmenter: Segmenter, mesh: DeviceMesh) -> Segmenter:
    """Share the parameters of a segmenter out over a mesh's dimension ``data_parallel``, in place.

    Blocks move to the device one after the other, so that it never holds more than one whole block. Nothing but a block
    itself may use the block's parameters afterwards.
    """
    numbers = {parameter for parameter in segmenter.parameters() if parameter.dim() == 0}
    backbone: Any = segmenter.backbone
    mesh = mesh["data_parallel"]
    parts: list[Any] = [*backbone.model.blocks, segmenter]
    for part in parts:
        part.to(_device(mesh))
        _send_from_first(part, mesh)
        fully_shard(part, mesh=mesh, reshard_after_forward=True, ignored_params=numbers)
    for number in numbers:
        if number.requires_grad:
            number.register_hook(mean_over_processes)  # type: ignore[no-untyped-call]
    register_fsdp_forward_method(segmenter, "logits")
    for part in parts:  # memory first filled in an evaluation, in inference mode, would be of no use in training
        part.unshard()
        part.reshard()
    if backbone.positions is not None and backbone.model.pos_embed.requires_grad:
        backbone.positions.keeps = False  # gathering leaves no mark by which a changed embedding could be told
    return segmenter


def _device(mesh: DeviceMesh) -> torch.device:
    """The device of this process."""
    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, torch.get_device_module(mesh.device_type).current_device())


def _send_from_first(part: nn.Module, mesh: DeviceMesh) -> None:
    """Let all processes have what the first one has, as DDP does: other machines may have rounded otherwise."""
    for tensor in (*part.parameters(), *part.buffers()):
        if not hasattr(tensor, "full_tensor"):  # shared out already
            distributed.broadcast(tensor.detach(), 0, mesh.get_group())


def send_buffers(segmenter: Segmenter) -> None:
    """Let all processes have the buffers of the first one, such as running means, as DDP does in every step."""
    for buffer in segmenter.decoder.buffers():
        distributed.broadcast(buffer.detach(), 0)
