"""Devices, precision and processes, through lightning-fabric."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from recyclelora.system.errors import UserError, first_line


def resolve_precision(precision: str, accelerator: str) -> str:
    """Turn ``auto`` into ``bf16-mixed`` where the hardware computes in bfloat16, else ``32-true``."""
    if precision != "auto":
        return precision
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def precision_plugin(precision: str, accelerator: str) -> Precision:
    """Autocast, and in float16 a gradient scaler, for a resolved precision.

    Fabric itself would turn float16 on a CPU into bfloat16 without a word.
    """
    if precision == "32-true":
        return Precision()
    return MixedPrecision(precision, accelerator)  # type: ignore[arg-type]


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; emulated it would be slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_accelerator(accelerator: str) -> str:
    """Turn ``auto`` into the device at hand."""
    if accelerator != "auto":
        return accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed of what lies on a device: mps has none."""
    return device if device.type == "cuda" else torch.device("cpu")


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed every global generator from (seed, step, rank).

    Random draws of a step then depend on nothing that came before, so a resumed run needs no generator state.
    """
    value = int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002  (libraries that draw from the global generator)
    torch.manual_seed(value)


def set_numerics(*, deterministic: bool = False, tf32: bool = False) -> None:
    """Say, for this process, what torch may do to be fast: nothing by default, float32 is float32 on GPUs too.

    Args:
        deterministic: only kernels that give the same bits again; an operation that has none is refused when it comes
        tf32: products and convolutions of float32 on GPUs with 10 bits of mantissa
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    if deterministic:  # read when cuBLAS is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic


NOT_DETERMINISTIC = re.compile(r"^(\S+) does not have a deterministic implementation")
"""What torch says of an operation that :func:`set_numerics` forbids."""


@contextmanager
def only_deterministic() -> Iterator[None]:
    """Let an operation without a deterministic kernel end the run with one line.

    Raises:
        UserError: naming the operation.
    """
    try:
        yield
    except RuntimeError as error:
        if (found := NOT_DETERMINISTIC.match(str(error))) is None:
            raise
        raise UserError(
            f"trainer.deterministic=true: {found[1]} has no deterministic kernel on this device; use another decoder "
            "or adapter, or trainer.deterministic=false"
        ) from error


def copied(batches: Iterable[tuple[Tensor, ...]], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Batches on the device; a GPU gets them, out of pinned memory, beside the work that it still has to do."""
    if device.type != "cuda":
        for batch in batches:
            yield tuple(part.to(device) for part in batch)
        return
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(beside):
            there = tuple(part.to(device, non_blocking=True) for part in batch)
        now = torch.cuda.current_stream(device)
        now.wait_stream(beside)
        for part in there:
            part.record_stream(now)
        yield there


def sent(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on the device; a GPU copies it while this process goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def fetched(tensor: Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy a tensor to the host; what is returned waits for it and gives the array."""
    if tensor.device.type != "cuda":
        array: np.ndarray = tensor.cpu().numpy()
        return lambda: array
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> np.ndarray:
        arrived.synchronize()
        there: np.ndarray = here.numpy()
        return there

    return wait


def check_launched_processes(devices: int, num_nodes: int) -> None:
    """Refuse a torchrun that started another number of processes than the configuration asks for.

    Raises:
        UserError: naming both numbers.
    """
    started = int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else None
    if started is not None and started != devices * num_nodes:
        raise UserError(
            f"torchrun started {started} processes, but trainer.devices={devices} x trainer.num_nodes={num_nodes} "
            f"asks for {devices * num_nodes}; give both the same number"
        )


def launched_fabric(
    accelerator: str, precision: str, *, devices: int, num_nodes: int, stall_timeout: int,
    shard: Callable[[Any, DeviceMesh], Any] | None = None,
) -> Fabric:  # fmt: skip
    """All processes of a run, launched, in a resolved precision.

    ``shard`` shares a model out over a mesh of all processes; None: each has a copy.

    Raises:
        UserError: there are no such devices.
    """
    resolved = resolve_accelerator(accelerator)
    processes, timeout = devices * num_nodes, timedelta(seconds=stall_timeout)
    strategy: Strategy | str = "auto"
    if processes > 1 and shard is not None:
        strategy = ModelParallelStrategy(shard, data_parallel_size=processes, tensor_parallel_size=1, timeout=timeout)
    elif processes > 1:
        strategy = DDPStrategy(timeout=timeout)
    try:
        fabric = Fabric(
            accelerator=resolved, devices=devices, num_nodes=num_nodes, plugins=[precision_plugin(precision, resolved)],
            strategy=strategy,
        )  # fmt: skip
        fabric.launch()
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        asked = f"trainer.accelerator={accelerator} trainer.devices={devices}"
        raise UserError(f"{asked}: {first_line(error)}") from error
    return fabric


@contextmanager
def first_alone(fabric: Fabric) -> Iterator[None]:
    """Let the first process go through alone; then all others, which find what it has kept on disk."""
    if not fabric.is_global_zero:
        fabric.barrier()
    yield
    if fabric.is_global_zero:
        fabric.barrier()


LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Timed out|timed out|Broken pipe", re.IGNORECASE)
"""What torch's process groups say of a process that is gone or does not answer."""


@contextmanager
def no_lost_process(fabric: Fabric) -> Iterator[None]:
    """Let a run of several processes end with one line when one of them is gone or silent.

    Processes that this one has started, and that may be stopped for good, end with it.

    Raises:
        UserError: instead of whatever the process group raised.
    """
    try:
        yield
    except RuntimeError as error:
        if fabric.world_size == 1 or not LOST.search(str(error)):
            raise
        for process in getattr(fabric.strategy.launcher, "procs", []):
            process.kill()
        raise UserError(
            f"process {fabric.global_rank} of {fabric.world_size}: another one is gone, or silent for longer than "
            "trainer.stall_timeout; the last checkpoint is kept: the same command goes on from there"
        ) from error
