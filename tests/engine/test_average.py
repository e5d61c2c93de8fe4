from __future__ import annotations

import torch
from torch import nn

from recyclelora.engine.average import WeightAverage


class Model(nn.Module):
    """One frozen and one trained weight, and a buffer of the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.backbone = nn.Identity()
        self.decoder = nn.BatchNorm1d(1)

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.decoder.weight.fill_(value)
            self.decoder.running_mean.fill_(value)


def test_average_by_hand_and_buffers_are_copied():
    model = Model()
    average = WeightAverage(model, momentum=0.25)
    assert "frozen" not in average.state
    for value in (5.0, 9.0):
        model.set(value)
        average.update()
    assert average.state["decoder.weight"].item() == 0.75 * (0.75 * 1 + 0.25 * 5) + 0.25 * 9
    assert average.state["decoder.running_mean"].item() == 9.0


def test_the_model_holds_the_average_only_for_a_while():
    model = Model()
    average = WeightAverage(model, momentum=0.5)
    model.set(3.0)
    average.update()
    with average.in_place():
        assert model.decoder.weight.item() == 2.0
    assert model.decoder.weight.item() == 3.0


def test_a_stored_average_goes_on():
    model = Model()
    average = WeightAverage(model, momentum=0.5)
    model.set(3.0)
    average.update()
    other = WeightAverage(model, momentum=0.5)
    other.load(average.state)
    for one in (average, other):
        one.update()
    assert all(torch.equal(other.state[name], value) for name, value in average.state.items())
    assert other.state["decoder.weight"].item() == 2.5
