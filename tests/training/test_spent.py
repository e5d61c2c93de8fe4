"""What a run has cost, counted over its launches; the GPU is told by stand-ins for torch and NVML."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from recyclelora.system.hardware import energy_joules
from recyclelora.training import spent
from recyclelora.training.spent import Spent

GPU = torch.device("cuda", 0)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """NVML's counter of millijoules, and the handles that were asked for."""
    told = SimpleNamespace(millijoules=5_000_000, asked=[], error=None)

    class NVMLError(Exception):
        pass

    def consumption(handle: str) -> int:
        if told.error:
            raise NVMLError(told.error)
        return told.millijoules

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=told.asked.append, NVMLError=NVMLError,
        nvmlDeviceGetTotalEnergyConsumption=consumption,
    ))  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aa-bb"))
    monkeypatch.setattr(spent, "peak_memory_mb", lambda device: 100.4)
    return told


def test_the_cost_of_all_launches(counter: SimpleNamespace):
    first = Spent(GPU, 1, time.perf_counter() - 10)
    counter.millijoules += 7_200_000
    state = first.state()
    assert (state["joules"], round(state["seconds"])) == (7200, 10) and counter.asked[0] == "GPU-aa-bb"
    counter.millijoules = 1_000  # another node, or its driver was loaded anew
    second = Spent(GPU, 1, time.perf_counter() - 20)
    second.restore({**state, "peak_memory_mb": 300.0})
    counter.millijoules += 3_600_000
    figures = second.figures()
    assert (figures["energy_wh"], figures["peak_memory_mb"]) == (3.0, 300)
    assert round(figures["seconds"]) == round(figures["gpu_seconds"]) == 30


def test_what_is_not_known_is_not_told(counter: SimpleNamespace):
    two = Spent(GPU, 2, time.perf_counter() - 10)
    assert two.figures()["energy_wh"] is None and round(two.figures()["gpu_seconds"]) == 20
    one = Spent(GPU, 1, time.perf_counter())
    one.restore({"seconds": 5.0})  # an earlier version's
    assert one.figures()["energy_wh"] is None and round(one.seconds) == 5
    counter.error = "Not Supported"
    assert energy_joules(GPU) is None and Spent(GPU, 1, 0.0).joules is None


def test_on_a_cpu_there_is_neither_gpu_nor_energy():
    found = Spent(torch.device("cpu"), 0, time.perf_counter()).figures()
    assert (found["gpu_seconds"], found["energy_wh"]) == (0, None) and found["peak_memory_mb"] > 10
