"""How far a method moved the weights, against the merged model by hand."""

from __future__ import annotations

import pytest
import torch
from low_rank import low_rank
from torch import nn

from recyclelora.adapters.changes import movement
from recyclelora.adapters.config import AdaptFormerConfig, DoraConfig, FullConfig
from recyclelora.adapters.controls.adaptformer import AdaptFormer
from recyclelora.adapters.controls.whole import Frozen, Full
from recyclelora.adapters.dora import DoRA
from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.adapters.low_rank.inject import LowRank
from recyclelora.adapters.method import AdapterContext, Method
from recyclelora.adapters.state import merge

from .models import tiny_vit, train_a_little

CPU = torch.device("cpu")
METHODS: dict[str, Method] = {
    "recyclelora": LowRank(low_rank(BranchConfig("rrqr_minor", 4), BranchConfig("rrqr_major", 2))),
    "one_block_q_k_v": LowRank(low_rank(BranchConfig("svd_minor", 4), split_qkv=True, blocks="1:")),
    "dora": DoRA(DoraConfig(rank=4)),
    "full": Full(FullConfig()),
}


@pytest.mark.parametrize("name", METHODS)
def test_movement_is_the_mean_over_all_linear_layers(name):
    model, pretrained = tiny_vit(), tiny_vit()
    METHODS[name].apply(model, AdapterContext())
    train_a_little(model)
    merged, shares = merge(model), []
    for layer, module in pretrained.named_modules():
        if isinstance(module, nn.Linear):
            before, after = module.weight.double(), merged.get_submodule(layer).weight.double()
            shares.append(float(((after - before).norm() / before.norm()).detach()))
    assert len(shares) == 8 and min(shares) == 0.0 if name == "one_block_q_k_v" else min(shares) > 0
    assert movement(model, pretrained, CPU) == pytest.approx(sum(shares) / 8, rel=1e-4)


def test_nothing_moves_in_a_frozen_backbone_and_none_is_known_of_what_works_beside_the_weights():
    frozen, beside = tiny_vit(), tiny_vit()
    Frozen().apply(frozen, AdapterContext())
    AdaptFormer(AdaptFormerConfig(width=8)).apply(beside, AdapterContext())
    assert movement(frozen, tiny_vit(), CPU) == 0.0
    assert movement(beside, tiny_vit(), CPU) is None
