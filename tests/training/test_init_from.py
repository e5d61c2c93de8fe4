"""``init_from``: whose rows go where."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from models.decoders.models import CHANNELS, SMALL_OPTIONS
from torch import nn

from recyclelora.models.decoders.config import DECODERS
from recyclelora.models.state import trainable_state
from recyclelora.runs.weights import Weights
from recyclelora.system.errors import UserError
from recyclelora.training.init_from import WarmStart

BEFORE, NOW = ["road", "sky", "car", "tree"], ["tree", "boat", "road"]
GONE = ("mask2former", "eomt")
"""Decoders with one row more, behind the classes, for no object."""


class Parts(nn.Module):
    """A decoder beside an adapter whose factor has as many rows as there are classes."""

    def __init__(self, decoder: str, classes: list[str], seed: int, rank: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = nn.Module()
        self.backbone.lora_a = nn.Parameter(torch.randn(rank, 6))
        self.decoder = DECODERS[decoder](**SMALL_OPTIONS[decoder]).build([CHANNELS] * 4, len(classes))


@pytest.fixture
def started(tiny_config):
    def start(decoder: str, classes: list[str]) -> WarmStart:
        config = copy.deepcopy(tiny_config)
        config.data.classes.names = classes
        trained = {n: t.clone() for n, t in trainable_state(Parts(decoder, classes, 1)).items()}
        return WarmStart(Path("first"), Weights(trained, {}, 0), config, None, "")

    return start


def row(state: dict[str, torch.Tensor], name: str, classes: list[str], wanted: str) -> torch.Tensor:
    return state[f"decoder.{name}"][classes.index(wanted)]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("now", [NOW, ["tree", "car", "sky", "road"]], ids=["other classes", "another order"])
def test_rows_go_to_the_classes_of_their_name_and_nothing_else_is_permuted(decoder, now, started):
    start, parts = started(decoder, BEFORE), Parts(decoder, now, 2)
    fresh = {n: t.clone() for n, t in trainable_state(parts).items()}
    remarks = start.apply(parts, now)
    state, given = trainable_state(parts), start.weights.trained
    assert torch.equal(state["backbone.lora_a"], given["backbone.lora_a"])
    per_class = parts.decoder.per_class()
    for name in per_class:
        for wanted in now:
            source = given if wanted in BEFORE else fresh
            before = BEFORE if wanted in BEFORE else now
            assert torch.equal(row(state, name, now, wanted), row(source, name, before, wanted))
        assert len(state[f"decoder.{name}"]) == len(now) + (decoder in GONE)
        if decoder in GONE:
            assert torch.equal(state[f"decoder.{name}"][-1], given[f"decoder.{name}"][-1])
    rest = [name for name in state if name.removeprefix("decoder.") not in per_class]
    assert all(torch.equal(state[name], given[name]) for name in rest)
    assert bool(remarks) == (now is NOW)


def test_another_rank_is_refused_and_nothing_is_copied(started):
    start, parts = started("linear", BEFORE), Parts("linear", NOW, 2, rank=3)
    before = {n: t.clone() for n, t in trainable_state(parts).items()}
    with pytest.raises(UserError, match=r"init_from=first: backbone\.lora_a is \(4, 6\) there and \(3, 6\) here"):
        start.apply(parts, NOW)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(parts).items())
