"""CUDA without a GPU: fake tensors that know their device and shape and hold no values.

An operation on tensors of two devices is refused as on a GPU, and every wait for the device is counted.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
READ, COMPARED = torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
SIZED_BY_VALUES = (
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
)


class Waits(TorchDispatchMode):
    """Counts what waits for the device, and answers 1 where a value is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if function is READ and first is not None:
            self.seen["read"] += first.device.type == "cuda"
            return True if first.dtype == torch.bool else 1 if not first.is_floating_point() else 1.0
        if function is COMPARED and first is not None and first.device.type == "cuda":
            self.seen["compared"] += 1
            return True
        if function in SIZED_BY_VALUES and first is not None and first.device.type == "cuda":
            self.seen[str(function)] += 1
        found = function(*args, **kwargs)
        source = args[1] if function is MOVES[1] else first
        if function in MOVES and source.device.type == "cuda" and found.device.type == "cpu":
            self.seen["to the host"] += 1
        return found


@contextmanager
def fake_cuda() -> Iterator[tuple[FakeTensorMode, Waits]]:
    """Everything computed inside is fake; tensors made before may take part where they stand on the CPU."""
    mode, waits = FakeTensorMode(allow_non_fake_inputs=True), Waits()
    with warnings.catch_warnings(), mode, waits:
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        yield mode, waits


def on_cuda(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A fake copy of a module, moved to the GPU as ``module.to("cuda")`` moves it: what it misses stays behind."""
    with FakeCopyMode(mode):
        found = copy.deepcopy(module)
    for part in found.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.detach().to(CUDA), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(CUDA)
    return found
