"""Layers of tiny adapted models and what is measured on them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import timm
import torch
from low_rank import inject, low_rank
from torch import nn

from recyclelora.adapters.calibration.statistics import Statistics
from recyclelora.adapters.changes import ALL, ChangedLayer, changed_layers
from recyclelora.adapters.config import DoraConfig
from recyclelora.adapters.dora import DoRA
from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.state import low_rank_layers, merge
from recyclelora.reports.analysis.measure import Measured, data_share_rows, measure
from recyclelora.reports.analysis.tables import mean, select

RECYCLE = low_rank(main=BranchConfig("rrqr_minor", 6), sub=BranchConfig("rrqr_major", 2))
LORA = low_rank(main=BranchConfig("kaiming", 4), residual=False, scale_rule="fixed", scale=2.0)
SPLIT = low_rank(main=BranchConfig("svd_minor", 4), split_qkv=True, blocks="1:")
CPU = torch.device("cpu")


def tiny_vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=4, num_classes=0
    )


def adapted(spec: LowRankConfig, *, moved: bool = True) -> nn.Module:
    model = tiny_vit()
    inject(model, spec)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters() if moved else ():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def measured(model: nn.Module) -> Measured:
    return measure(changed_layers(model, tiny_vit(), CPU), map_blocks=[0])


def values(found: Measured, table: str, **wanted: object) -> list[float]:
    return [row.value for row in select(found.tables[table], **wanted)]


@pytest.mark.parametrize("spec", [RECYCLE, LORA, SPLIT])
def test_updates_and_weights_are_those_of_the_merged_model(spec):
    model, pretrained = adapted(spec), tiny_vit()
    merged, seen = merge(model), {}
    for layer in changed_layers(model, pretrained, CPU):
        update = layer.update.left @ layer.update.right
        name, _, part = layer.name.partition(".qkv.")
        if part:
            name = f"{name}.qkv"
        seen.setdefault(name, []).append((layer.weight, update))
    linears = {name for name, module in merged.named_modules() if isinstance(module, nn.Linear)}
    assert set(seen) == {name for name in linears if spec is not SPLIT or "blocks.1." in name}
    for name, parts in seen.items():
        weight, update = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        assert torch.equal(weight, pretrained.get_submodule(name).weight.double())
        expected = merged.get_submodule(name).weight.double()
        torch.testing.assert_close(weight + update, expected, atol=1e-6, rtol=1e-6)


def test_recyclelora_starts_with_rank_efficiency_one_and_orthogonal_adapters():
    found = measured(adapted(RECYCLE))
    for branch, rank in (("main", 6), ("sub", 2), (ALL, 8)):
        assert values(found, "rank", branch=branch, stage="init", quantity="rank_efficiency") == pytest.approx(
            [1.0] * 8
        )
        assert set(values(found, "rank", branch=branch, stage="update", quantity="rank")) == {2 * rank}
    for side in "ab":
        start = values(found, "similarity", branch="main-sub", stage="init", quantity=f"grassmann_{side}")
        assert start == pytest.approx([0.0] * 8, abs=1e-12)
        assert min(values(found, "similarity", stage="trained", quantity=f"grassmann_{side}")) > 1e-4
        angles = values(found, "angles", stage="init", quantity=f"angle_{side}")
        assert angles == pytest.approx([90.0] * 16, abs=1e-4)


def test_an_adapter_that_did_not_move_spans_what_it_spanned_and_has_no_update():
    found = measured(adapted(RECYCLE, moved=False))
    for side in "ab":
        assert values(found, "similarity", quantity=f"grassmann_{side}_to_start") == pytest.approx([1.0] * 16)
    assert values(found, "size", quantity="norm") == [0.0] * 8
    assert all(map(math.isnan, values(found, "rank", stage="update", quantity="effective_rank")))
    assert "shares" not in found.tables


def test_lora_without_residual_starts_undefined_and_its_update_is_its_product():
    found = measured(adapted(LORA))
    assert all(map(math.isnan, values(found, "rank", stage="init", quantity="effective_rank")))
    assert values(found, "rank", branch=ALL, stage="update") == values(found, "rank", branch=ALL, stage="trained")
    assert "similarity" in found.tables and "angles" not in found.tables
    trained = values(found, "spectra", stage="trained")
    assert trained == pytest.approx(values(found, "spectra", stage="update"))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_product_of_rounding_noise_has_no_effective_rank(scale):
    """B0 A0 = 0 in exact numbers; what float32 leaves of it has as many directions as random numbers have."""
    spec = low_rank(BranchConfig("orthogonal", 8), scale_rule="fixed", scale=scale)
    found = measured(adapted(spec, moved=False))
    for branch in ("main", ALL):
        for quantity in ("effective_rank", "rank_efficiency"):
            assert all(map(math.isnan, values(found, "rank", branch=branch, stage="init", quantity=quantity)))
    moved = measured(adapted(spec))
    assert min(values(moved, "rank", branch=ALL, stage="trained", quantity="effective_rank")) > 5


def test_the_span_of_half_a_rotation_has_half_its_rank():
    """A0 and B0 of `orthogonal` have rank 4 of 8; after training all 8 directions are there."""
    model = adapted(low_rank(BranchConfig("orthogonal", 8)), moved=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    moved = measured(model)
    for side in "ab":
        similar = values(moved, "similarity", quantity=f"grassmann_{side}_to_start")
        assert min(similar) > 0.9  # 4 directions, nearly kept; four more of noise would halve it
    still = measured(adapted(low_rank(BranchConfig("orthogonal", 8)), moved=False))
    assert values(still, "similarity", quantity="grassmann_b_to_start") == pytest.approx([1.0] * 8)


def test_the_rounding_of_a_merged_weight_is_no_update():
    """DoRA divides and multiplies every row by its norm: what it has not trained comes back but for rounding."""
    model = tiny_vit()
    DoRA(DoraConfig(rank=4, alpha=4.0)).apply(model, AdapterContext())
    found = measured(model)
    assert all(map(math.isnan, values(found, "rank", stage="update", quantity="effective_rank")))
    assert 0 < max(values(found, "size", quantity="relative_norm")) < 2.0**-23
    assert "shares" not in found.tables


def test_measured_numbers_are_those_of_the_dense_matrices():
    model, pretrained = adapted(RECYCLE), tiny_vit()
    found = measured(model)
    for name, layer in low_rank_layers(model):
        weight = pretrained.get_submodule(name).weight.detach().double()
        delta = layer.merged_weight().double() - weight
        assert values(found, "size", layer=name, quantity="relative_norm") == pytest.approx(
            [float(delta.norm() / weight.norm())], rel=1e-4
        )
        spectrum = torch.linalg.svdvals(delta)[:16]
        stored = values(found, "spectra", layer=name, stage="update")
        assert stored == pytest.approx(spectrum.tolist(), abs=1e-6)
        u, _, vt = torch.linalg.svd(weight, full_matrices=False)
        for side, part in (("left", u[:, :8].T @ delta), ("right", delta @ vt[:8].T)):
            share = float(part.square().sum() / delta.square().sum())
            assert values(found, "shares", layer=name, quantity=f"{side}_top_share") == pytest.approx([share], rel=1e-3)
        ends = select(found.tables["shares"], layer=name, quantity="right_cumulative_share", index=10)
        inside = 1.0 if weight.shape[1] <= weight.shape[0] else float((delta @ vt.T).norm() ** 2 / delta.norm() ** 2)
        assert ends[0].value == pytest.approx(inside, rel=1e-3)


def test_column_norms_and_cosines_by_hand():
    model = adapted(RECYCLE, moved=False)
    layer = model.get_submodule("blocks.0.attn.proj")
    assert isinstance(layer, LowRankLinear)
    with torch.no_grad():
        layer.main.lora_a += 0.5
        layer.main.lora_b.copy_(torch.eye(32, 6))
        layer.sub.lora_b.copy_(torch.eye(32, 2))
    found = measured(model)
    name = {"layer": "blocks.0.attn.proj", "branch": "main"}
    step = 0.5 * 6**0.5
    assert values(found, "column_norms", **name, stage="update", quantity="column_norm_ratio") == pytest.approx([1.0])
    inside = (1.5**2 + 5 * 0.25) ** 0.5
    ratio = values(found, "column_norms", **name, stage="trained", quantity="column_norm_ratio")
    assert ratio == pytest.approx([inside / step])
    cosine = {
        key: values(found, "cosines", layer=name["layer"], branch=key, quantity="mean_abs_cosine_b")
        for key in ("main", "sub", "main-sub")
    }
    assert cosine == {"main": [0.0], "sub": [0.0], "main-sub": pytest.approx([2 / 12])}
    maps = found.cosines["blocks.0.attn.proj"]
    assert maps.b.shape == maps.a.shape == (8, 8) and maps.ranks == {"main": 6, "sub": 2}
    assert not [kept for kept in found.cosines if "blocks.1" in kept]


def test_splitting_qkv_gives_three_layers_of_their_own():
    found = measured(adapted(SPLIT))
    types = dict.fromkeys(row.type for row in found.tables["size"])
    assert list(types) == ["q", "k", "v", "proj", "fc1", "fc2"]
    assert {row.block for row in found.tables["size"]} == {1}


def test_fine_tuned_weights_have_a_spectrum_and_shares_but_no_branches():
    model = tiny_vit()
    with torch.no_grad():
        u, _, vt = torch.linalg.svd(model.blocks[1].mlp.fc1.weight, full_matrices=False)
        model.blocks[1].mlp.fc1.weight += 0.1 * torch.outer(u[:, -1], vt[-1])
    found = measured(model)
    assert set(found.tables) == {"rank", "spectra", "size", "shares"}
    assert values(found, "rank", stage="update", quantity="effective_rank") == pytest.approx([1.0], abs=1e-2)
    assert values(found, "size", quantity="norm") == pytest.approx([0.1], rel=1e-4)
    for side in ("left", "right"):
        assert values(found, "shares", quantity=f"{side}_bottom_share") == pytest.approx([1.0], abs=1e-4)
        assert values(found, "shares", quantity=f"{side}_top_share") == pytest.approx([0.0], abs=1e-4)
    assert not list(changed_layers(tiny_vit(), tiny_vit(), CPU))


def test_a_layer_that_adds_more_than_its_factors_is_measured_by_its_merged_weight():
    """As DoRA's is: a subclass whose weight is not W_res + s B A."""

    class Doubled(LowRankLinear):
        def merged_weight(self) -> torch.Tensor:
            return 2 * super().merged_weight()

    model = adapted(LORA)
    layer = model.get_submodule("blocks.0.mlp.fc1")
    layer.__class__ = Doubled
    plain = copy.deepcopy(model)
    plain.get_submodule("blocks.0.mlp.fc1").__class__ = LowRankLinear
    pretrained = tiny_vit()
    found = {layer.name: layer for layer in changed_layers(model, pretrained, CPU)}
    update = found["blocks.0.mlp.fc1"].update
    assert isinstance(update, torch.Tensor) and set(found["blocks.0.mlp.fc1"].branches) == {"main"}
    twice = (
        2 * plain.get_submodule("blocks.0.mlp.fc1").merged_weight()
        - pretrained.get_submodule("blocks.0.mlp.fc1").weight
    )
    torch.testing.assert_close(update, twice.double(), atol=1e-6, rtol=1e-5)
    sizes = measured(model)
    assert mean(values(sizes, "size", layer="blocks.0.mlp.fc1", quantity="relative_norm")) > 0.9


def test_shares_in_the_directions_of_the_data_by_hand():
    """An update of two directions: the first input of most energy, weight 3, and the last one, weight 1."""
    rng = np.random.default_rng(0)
    inputs, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    outputs, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    moment = inputs @ np.diag(np.arange(20.0, 0.0, -1.0)) @ inputs.T
    gradient = outputs[:, :20] @ np.diag(np.arange(40.0, 0.0, -2.0)) @ inputs[:, ::-1].T
    update = 3 * np.outer(outputs[:, 19], inputs[:, 0]) + np.outer(outputs[:, 25], inputs[:, 19])
    layer = ChangedLayer("blocks.0.mlp.fc1", torch.randn(30, 20).double(), torch.from_numpy(update))
    found = {row.quantity: row.value for row in data_share_rows(layer, Statistics(moment, None, gradient))}
    expected = {"moments": (0.9, 0.1), "gradient_left": (0.0, 0.9), "gradient_right": (0.1, 0.9)}
    for name, (top, bottom) in expected.items():  # of two of twenty directions, and of the outputs 25 is none of them
        assert found[f"{name}_top_share"] == pytest.approx(top), name
        assert found[f"{name}_bottom_share"] == pytest.approx(bottom), name
        assert found[f"{name}_random_share"] == pytest.approx(2 / (30 if name == "gradient_left" else 20))
    assert found["moments_cumulative_share"] == pytest.approx(1) and found["gradient_left_cumulative_share"] < 0.91
    assert not [row for row in data_share_rows(layer, Statistics(moment)) if row.quantity.startswith("gradient")]
