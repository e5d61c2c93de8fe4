from __future__ import annotations

import torch
from torch import nn

from recyclelora.training.average import WeightAverage


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
    for step, value in enumerate((5.0, 9.0), 1):
        model.set(value)
        average.update(step)
    assert average.state["decoder.weight"].item() == 0.75 * (0.75 * 1 + 0.25 * 5) + 0.25 * 9
    assert average.state["decoder.running_mean"].item() == 9.0


def test_the_model_holds_the_average_only_for_a_while():
    model = Model()
    average = WeightAverage(model, momentum=0.5)
    model.set(3.0)
    average.update(1)
    with average.in_place():
        assert model.decoder.weight.item() == 2.0
    assert model.decoder.weight.item() == 3.0


def test_a_stored_average_goes_on():
    model = Model()
    average = WeightAverage(model, momentum=0.5)
    model.set(3.0)
    average.update(1)
    other = WeightAverage(model, momentum=0.5)
    other.load(average.state)
    for one in (average, other):
        one.update(2)
    assert all(torch.equal(other.state[name], value) for name, value in average.state.items())
    assert other.state["decoder.weight"].item() == 2.5


def test_up_to_its_start_the_average_is_the_weights_as_in_mmengines_hook():
    """EMAHook(begin_iter=2): copies until two steps are done, a mean from the third on."""
    model = Model()
    average = WeightAverage(model, momentum=0.25, start=2)
    seen = []
    for step, value in enumerate((5.0, 9.0, 13.0, 1.0), 1):
        model.set(value)
        average.update(step)
        seen.append(average.state["decoder.weight"].item())
    assert seen == [5.0, 9.0, 0.75 * 9 + 0.25 * 13, 0.75 * (0.75 * 9 + 0.25 * 13) + 0.25 * 1]


def test_what_a_method_promises_holds_for_the_average_too():
    def off(state):
        state["decoder.weight"].zero_()

    model = Model()
    average = WeightAverage(model, momentum=0.25, constrain=off)
    model.set(5.0)
    average.update(1)
    assert average.state["decoder.weight"].item() == 0.0 != average.state["decoder.bias"].add(1).item()
    average.load({name: value + 1 for name, value in average.state.items()})
    assert average.state["decoder.weight"].item() == 0.0
    assert model.decoder.weight.item() == 5.0
