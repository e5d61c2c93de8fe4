from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from recyclelora.system.parameter_rule import ParameterRule
from recyclelora.training import loop
from recyclelora.training.loop import Cadence, fit
from recyclelora.training.optimizer import adamw, parameter_groups
from recyclelora.training.schedule import Schedule


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Model(nn.Module):
    """One weight; a forward takes 3 seconds."""

    def __init__(self, clock):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.clock = clock

    def forward(self, images, labels):
        self.clock.now += 3
        return {"loss": (self.weight * images.float().mean() - labels.float().mean()) ** 2}


class Hooks:
    """Records the points; a log takes 10 seconds, an evaluation 100, a checkpoint 1000."""

    def __init__(self, clock):
        self.points, self.clock = [], clock

    def log(self, step, values):
        self.points.append(values)
        self.clock.now += 10

    def evaluate(self, step):
        self.clock.now += 100

    def save(self, step):
        self.clock.now += 1000

    def stop_requested(self):
        return False

    def pauses(self, step):
        return False


def batches(clock, seconds):
    for wait in seconds:
        clock.now += wait
        yield torch.ones(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8)


def points(monkeypatch, waits, log_every):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    model = Model(clock)
    groups = parameter_groups(
        model.named_parameters(), {"weight": ParameterRule(1.0, None, "all")}, lr=0.1, weight_decay=0.0
    )
    wrapped, optimizer = Fabric(accelerator="cpu", devices=1).setup(model, adamw(groups, betas=(0.9, 0.999), eps=1e-8))
    hooks, steps = Hooks(clock), len(waits)
    fit(
        Fabric(accelerator="cpu", devices=1), wrapped, optimizer, Schedule(steps),
        batches(clock, waits), Cadence(steps, log_every, 2, 3), hooks, seed=0,
    )  # fmt: skip
    return [{k: v for k, v in point.items() if k.startswith(("data", "seconds"))} for point in hooks.points]


def test_only_asking_for_the_next_batch_counts_as_waiting_for_data(monkeypatch: pytest.MonkeyPatch):
    assert points(monkeypatch, [7, 2, 1, 0], 1) == [
        {"seconds_per_step": 10.0, "data_wait_seconds": 7.0, "data_wait_share": 0.7},
        {"seconds_per_step": 5.0, "data_wait_seconds": 2.0, "data_wait_share": 0.4},
        {"seconds_per_step": 4.0, "data_wait_seconds": 1.0, "data_wait_share": 0.25},
        {"seconds_per_step": 3.0, "data_wait_seconds": 0.0, "data_wait_share": 0.0},
    ]


def test_points_average_over_the_steps_since_the_last(monkeypatch: pytest.MonkeyPatch):
    assert points(monkeypatch, [1, 2, 3, 6], 4) == [
        {"seconds_per_step": 6.0, "data_wait_seconds": 3.0, "data_wait_share": 0.5}
    ]
