"""The update of a layer as one pair of factors."""

from __future__ import annotations

import pytest
import torch
from low_rank import inject, low_rank
from torch import nn

from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.low_rank.layer import LowRankLinear, SplitQKV
from recyclelora.exchange.exports.updates import reduced, update_of


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(24, 72)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block()])


def adapted(spec: LowRankConfig, move: bool = True) -> tuple[LowRankLinear | SplitQKV, nn.Linear]:
    """A moved layer and the pretrained one."""
    torch.manual_seed(0)
    model = Model()
    before = nn.Linear(24, 72)
    before.load_state_dict(model.blocks[0].qkv.state_dict())
    inject(model, spec)
    for parameter in model.parameters():
        if parameter.requires_grad and move:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.blocks[0].qkv, before


MAIN, SUB = BranchConfig("rrqr_minor", 3), BranchConfig("rrqr_major", 2)
SPECS = {
    "recyclelora": (low_rank(MAIN, SUB), 10),
    "lora": (low_rank(BranchConfig("kaiming", 3), residual=False), 3),
    "lora with a residual that is zero": (low_rank(BranchConfig("kaiming", 3)), 3),
    "pissa": (low_rank(BranchConfig("svd_major", 3), scale_rule="fixed", scale=0.7), 6),
    "frozen A": (low_rank(BranchConfig("svd_minor", 3, train_a=False)), 3),
    "frozen B": (low_rank(BranchConfig("rrqr_minor", 4, train_b=False)), 4),
    "split qkv": (low_rank(MAIN, SUB, split_qkv=True), 24),
    "wider than the layer": (low_rank(BranchConfig("rrqr_minor", 20)), 24),
}


@pytest.mark.parametrize("name", SPECS)
def test_an_update_is_the_change_of_the_weight(name):
    spec, rank = SPECS[name]
    layer, before = adapted(spec)
    update = update_of(layer, before.bias)
    assert update.rank == rank and update.scale == spec.layer_scale
    change = layer.merged().weight.double() - before.weight.double()
    torch.testing.assert_close(update.scale * update.b.double() @ update.a.double(), change, atol=1e-7, rtol=1e-5)


def test_factors_with_no_rank_to_spare_are_the_trained_ones():
    layer, before = adapted(low_rank(MAIN, SUB))
    update = update_of(layer, before.bias)
    branches = layer.branches().values()
    assert torch.equal(update.a[:5], torch.cat([branch.lora_a for branch in branches]))
    assert torch.equal(update.b[:, :5], torch.cat([branch.lora_b for branch in branches], dim=1))
    assert torch.equal(update.b[:, 5:], -torch.cat([branch.initial.b for branch in branches], dim=1))


def test_q_k_and_v_stay_apart():
    layer, before = adapted(low_rank(BranchConfig("kaiming", 2), residual=False, split_qkv=True))
    update = update_of(layer, before.bias)
    assert update.rank == 6
    assert not update.b[:24, 2:].any() and not update.b[24:48, :2].any() and not update.b[24:48, 4:].any()


def test_nothing_trained_is_no_update():
    layer, before = adapted(low_rank(MAIN, SUB), move=False)
    assert update_of(layer, before.bias).rank == 0


@pytest.mark.parametrize("split", [False, True])
def test_a_trained_bias_is_told(split):
    layer, before = adapted(low_rank(MAIN, train_bias=True, split_qkv=split))
    layer.requires_grad_(False)
    torch.testing.assert_close(before.bias + update_of(layer, before.bias).bias, layer.merged().bias)
    layer, before = adapted(low_rank(MAIN))
    assert update_of(layer, before.bias).bias is None


def test_a_bias_alone_has_a_place():
    layer, before = adapted(low_rank(MAIN, train_bias=True), move=False)
    layer.bias.data += 1
    update = update_of(layer, before.bias)
    assert update.rank == 1 and not (update.b @ update.a).any()
    torch.testing.assert_close(update.bias, torch.ones(72))


def test_reduction_keeps_what_is_tiny_but_there():
    torch.manual_seed(0)
    a, b = torch.randn(4, 24), torch.randn(72, 4)
    a[3] = a[2] + 1e-6 * torch.randn(24)
    assert len(reduced(a, b)[0]) == 4
    a[3] = a[2]
    small_a, small_b = reduced(a, b)
    assert len(small_a) == 3
    torch.testing.assert_close(small_b @ small_a, b @ a, atol=1e-5, rtol=1e-5)
