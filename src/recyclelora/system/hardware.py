"""What a run is computed on: processor, memory, threads, GPUs and their driver."""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path
from typing import Any

import torch

from recyclelora.system.cores import available_cores


def hardware() -> dict[str, Any]:
    """Names and counts, for ``run.json``; also what decides the order of float32 sums on a CPU: its threads."""
    return {
        "cpu": _cpu_model(),
        "cpus": available_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": torch.get_num_threads(),
        "gpus": _gpus(),
        "driver": _driver(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,  # type: ignore[no-untyped-call]
    }


def peak_memory_mb(device: torch.device) -> float:
    """Peak of the device's memory; of the process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def energy_joules(device: torch.device) -> float | None:
    """What a GPU has used since its driver was loaded; None where NVML, or its package, does not say."""
    if device.type != "cuda":
        return None
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000
    except (ImportError, AttributeError):
        return None
    except pynvml.NVMLError:
        return None


def _cpu_model() -> str:
    """The processor's name as the kernel tells it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _gpus() -> list[dict[str, Any]]:
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in gpus]


def _driver() -> str | None:
    """Version of the NVIDIA driver; None without one."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?(\d+\.\d+[.\d]*)", text)
    return found[1] if found else None
