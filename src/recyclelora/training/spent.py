"""What a run has cost so far, over all its launches: time, GPUs, energy, memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from recyclelora.system.hardware import energy_joules, peak_memory_mb


@dataclass
class Spent:
    """Counts on from what earlier launches have saved.

    Energy is that of the whole GPU, as its NVML counter tells it: of trials that share one, each is told all of it. It
    is known of a training on one GPU only, and not where an earlier launch did not know it.
    """

    device: torch.device
    gpus: int
    """of the whole run; 0 on a CPU"""
    began: float
    """``time.perf_counter()`` when this launch did"""
    _seconds: float = 0.0
    _joules: float | None = 0.0
    _memory_mb: float = 0.0
    _counter: float | None = field(init=False)

    def __post_init__(self) -> None:
        self._counter = self._read()

    def _read(self) -> float | None:
        return energy_joules(self.device) if self.gpus == 1 else None

    @property
    def seconds(self) -> float:
        """In training and evaluation."""
        return self._seconds + time.perf_counter() - self.began

    @property
    def peak_memory_mb(self) -> float:
        """Of the device; of the process on a CPU."""
        return max(self._memory_mb, peak_memory_mb(self.device))

    @property
    def joules(self) -> float | None:
        """Of the GPU; None where that is not known."""
        now = self._read()
        if now is None or self._counter is None or self._joules is None:
            return None
        return self._joules + now - self._counter

    def state(self) -> dict[str, float | None]:
        """For a checkpoint."""
        return {"seconds": self.seconds, "joules": self.joules, "peak_memory_mb": self.peak_memory_mb}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; one of an earlier version knows seconds only."""
        self._seconds, self._joules = float(state["seconds"]), state.get("joules")
        self._memory_mb = float(state.get("peak_memory_mb", 0.0))

    def figures(self) -> dict[str, float | None]:
        """For ``result.json``."""
        joules = self.joules
        return {
            "seconds": round(self.seconds, 1),
            "gpu_seconds": round(self.seconds * self.gpus, 1),
            "energy_wh": None if joules is None else round(joules / 3600, 3),
            "peak_memory_mb": round(self.peak_memory_mb),
        }
