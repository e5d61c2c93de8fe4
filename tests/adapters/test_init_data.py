"""Starts that look at data, against their formulas in numpy and against PEFT with the same statistics."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from low_rank import inject, low_rank
from torch import nn

from recyclelora.adapters.calibration.statistics import Statistics
from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.low_rank.factors import Factors, LayerWeight, branch_rng
from recyclelora.adapters.low_rank.inits import INITIALIZERS
from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.low_rank.ranks import shared_out
from recyclelora.adapters.state import initial_state, low_rank_layers
from recyclelora.config.testing import shown_images

from .models import tiny_vit

SCALE, RANK = 0.25, 4
SHAPES = pytest.mark.parametrize("shape", [(40, 24), (24, 40)])


def tokens(width: int, count: int = 400) -> np.ndarray:
    """Inputs (count, width) of very unequal size in the directions of no coordinate, and of a mean that is not zero."""
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    return (rng.standard_normal((count, width)) * np.geomspace(3, 0.01, width)) @ turn.T + 0.2


def layer(shape: tuple[int, int]) -> LayerWeight:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = tokens(shape[1])
    gradient = np.random.default_rng(2).standard_normal(shape) * 1e-3
    return LayerWeight(weight, SCALE, statistics=Statistics(x.T @ x / len(x), x.mean(0), gradient))


def start(init: str, source: LayerWeight, rank: int = RANK) -> tuple[np.ndarray, np.ndarray, Factors]:
    """B0 and A0 as float64."""
    factors = INITIALIZERS[init](source, rank, branch_rng(0, "l", "main"))
    a = factors.dense_a(source.weight.shape[1])
    assert factors.b.shape == (source.weight.shape[0], rank) and a.shape == (rank, source.weight.shape[1])
    return factors.b.double().numpy(), a.double().numpy(), factors


@SHAPES
def test_lora_null_takes_the_weight_on_the_last_eigenvectors_of_the_inputs(shape):
    source = layer(shape)
    b, a, _ = start("lora_null", source)
    null = np.linalg.eigh(source.data.moment)[1][:, :RANK]
    np.testing.assert_allclose(SCALE * b @ a, source.matrix @ null @ null.T, atol=1e-5)
    np.testing.assert_allclose(b.T @ b, a @ a.T, atol=1e-5)
    rows = a / np.linalg.norm(a, axis=1, keepdims=True)
    assert np.trace(rows @ source.data.moment @ rows.T) < 0.01 * np.trace(source.data.moment)


@SHAPES
@pytest.mark.parametrize("end", ["major", "minor"])
def test_recyclelora_by_data_is_the_pivoted_qr_of_the_weight_as_data_see_it(shape, end):
    source = layer(shape)
    seen = source.matrix @ scipy.linalg.sqrtm(source.data.moment).real
    q, _, pivots = scipy.linalg.qr(seen, mode="economic", pivoting=True)
    k = min(shape)
    chosen = slice(0, RANK) if end == "major" else slice(k - RANK, k)
    b, a, factors = start(f"rrqr_{end}_data", source)
    np.testing.assert_allclose(b, q[:, chosen], atol=1e-5)
    assert factors.a_index is not None and factors.a_index.tolist() == pivots[:k][chosen].tolist()
    assert a.sum() == RANK


def test_white_data_leave_the_directions_of_the_weight():
    source = layer((40, 24))
    white = LayerWeight(source.weight, SCALE, statistics=Statistics(np.eye(24), np.zeros(24)))
    q, _, pivots = scipy.linalg.qr(source.matrix, mode="economic", pivoting=True)
    b, _, factors = start("rrqr_minor_data", white)
    np.testing.assert_allclose(b, q[:, -RANK:], atol=1e-6)
    assert factors.a_index.tolist() == pivots[-RANK:].tolist()


@SHAPES
def test_the_null_space_form_reads_what_data_hardly_bring_and_the_weight_makes_most_of(shape):
    source = layer(shape)
    values, vectors = np.linalg.eigh(source.data.moment)
    size = int((np.cumsum(values) <= 0.01 * values.sum()).sum())
    assert RANK < size < shape[1]
    tail = vectors[:, :size]
    q, _, pivots = scipy.linalg.qr(source.matrix @ tail, mode="economic", pivoting=True)
    b, a, _ = start("rrqr_null", source)
    np.testing.assert_allclose(b, q[:, :RANK], atol=1e-5)
    np.testing.assert_allclose(a, tail[:, pivots[:RANK]].T, atol=1e-6)


@SHAPES
def test_lora_one_is_a_step_down_the_gradient(shape):
    source = layer(shape)
    b, a, _ = start("lora_one", source)
    u, s, vt = np.linalg.svd(source.data.gradient, full_matrices=False)
    np.testing.assert_allclose(b @ a, -(u[:, :RANK] * s[:RANK]) @ vt[:RANK] / (128 * s[0]), atol=1e-6)


def by_peft(source: LayerWeight, prepare, **options) -> tuple[np.ndarray, ...]:
    """PEFT's B and A for the same weight at the same scale."""
    import peft

    out, width = source.weight.shape
    model = nn.Sequential(nn.Linear(width, out))
    model[0].weight.data.copy_(source.weight)
    config = peft.LoraConfig(target_modules=["0"], r=RANK, lora_alpha=SCALE * RANK, **options)
    prepare(model, config)
    made = peft.get_peft_model(model, config).base_model.model[0]
    return tuple(getattr(made, f"lora_{factor}")["default"].weight.detach().double().numpy() for factor in "BA")


@SHAPES
@pytest.mark.parametrize("method", ["kpm", "ipm"])
def test_corda_is_pefts(shape, method):
    from peft.tuners.lora import corda
    from peft.tuners.lora.config import CordaConfig

    source = layer(shape)

    def prepare(model, config):
        model[0].covariance_matrix, model[0].corda_method = torch.from_numpy(source.data.moment), method
        model[0].rank = RANK
        corda.collect_eigens(model, config, verbose=False)
        corda.crop_corda_eigens(model, config)

    b, a = by_peft(source, prepare, init_lora_weights="corda", corda_config=CordaConfig(corda_method=method))
    own_b, own_a, _ = start(f"corda_{method}", source)
    signs = np.sign((b * own_b).sum(0))
    np.testing.assert_allclose(own_b * signs, b, atol=2e-3 * np.abs(b).max(), rtol=1e-2)
    np.testing.assert_allclose(own_a * signs[:, None], a, atol=2e-3 * np.abs(a).max(), rtol=1e-2)
    assert np.linalg.norm(own_b @ own_a - b @ a) < 2e-3 * np.linalg.norm(b @ a)


@SHAPES
def test_eva_is_pefts(shape):
    from peft.utils.incremental_pca import IncrementalPCA

    source, x = layer(shape), tokens(shape[1])
    pca = IncrementalPCA(n_components=RANK)
    pca.partial_fit(torch.from_numpy(x))
    b, a, factors = start("eva", source)
    expected = pca.components_.numpy()
    signs = np.sign((a * expected).sum(1))
    assert not b.any()
    np.testing.assert_allclose(a * signs[:, None], expected, atol=1e-5)
    np.testing.assert_allclose(factors.shares, pca.explained_variance_ratio_.numpy(), rtol=1e-6)


@SHAPES
def test_lora_ga_is_pefts(shape):
    import peft

    source = layer(shape)

    def prepare(model, config):
        model[0]._peft_loraga_grad = torch.from_numpy(source.data.gradient).float()

    torch.manual_seed(0)
    options = peft.LoraGAConfig(direction="ArB2r", scale="stable", stable_gamma=16)
    b, a = by_peft(source, prepare, init_lora_weights="lora_ga", lora_ga_config=options)
    own_b, own_a, _ = start("lora_ga", source)
    b_signs, a_signs = np.sign((b * own_b).sum(0)), np.sign((a * own_a).sum(1))  # one pair's signs each are free
    np.testing.assert_allclose(own_b * b_signs, b, atol=2e-2 * np.abs(b).max())
    np.testing.assert_allclose(own_a * a_signs[:, None], a, atol=2e-2)


@pytest.mark.parametrize("init", ["lora_null", "corda_kpm", "corda_ipm", "lora_ga", "rrqr_minor_data", "rrqr_null"])
def test_the_layer_starts_as_the_pretrained_one(init):
    from recyclelora.adapters.low_rank.layer import Branch

    source, x = layer((40, 24)), torch.randn(7, 24)
    linear = nn.Linear(24, 40)
    linear.weight.data.copy_(source.weight)
    made = LowRankLinear(linear, {"main": Branch(start(init, source)[2], 24)}, scale=SCALE)
    torch.testing.assert_close(made(x), linear(x), atol=2e-5, rtol=1e-5)


def test_ranks_go_where_they_explain_most():
    def candidates(*shares: float) -> Factors:
        return Factors.of(np.zeros((5, len(shares))), np.eye(len(shares), 6), from_data=True, shares=np.array(shares))

    given = {"one": candidates(0.5, 0.2), "two": candidates(0.4, 0.3), "three": candidates(0.1, 0.1)}
    ranks = {name: factors.rank for name, factors in shared_out(given, 3).items()}
    assert ranks == {"one": 1, "two": 2, "three": 0}
    assert {n: f.rank for n, f in shared_out(given, 100).items()} == {"one": 2, "two": 2, "three": 2}


def test_eva_shares_ranks_out_over_a_model_and_finds_them_again():
    options = low_rank(BranchConfig("eva", 4), residual=False)
    model = tiny_vit()
    # inputs of one direction: the first explains all of them, so that this layer needs a rank of 1 at most
    nn.init.zeros_(model.blocks[0].norm2.weight)
    nn.init.ones_(model.blocks[0].norm2.bias)
    pretrained = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model.eval().forward_features(images)
    inject(model, options, calibration=shown_images(model))
    ranks = {name: made.main.initial.rank for name, made in low_rank_layers(model)}
    assert sum(ranks.values()) == 4 * 8 and max(ranks.values()) <= 8 and len(set(ranks.values())) > 1
    assert "blocks.0.mlp.fc1" not in ranks  # nothing varies there
    assert torch.equal(model.forward_features(images), expected)
    again = tiny_vit()
    again.load_state_dict(pretrained)
    inject(again, options, initial=initial_state(model))
    assert {name: made.main.initial.rank for name, made in low_rank_layers(again)} == ranks
    kept = initial_state(again)
    assert kept.keys() == initial_state(model).keys()
    assert all(torch.equal(value, kept[name]) for name, value in initial_state(model).items())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (low_rank(BranchConfig("lora_one", 4)), "residual"),
        (low_rank(BranchConfig("eva", 4), BranchConfig("kaiming", 2)), "sub"),
        (low_rank(BranchConfig("eva", 4), split_qkv=True), "split_qkv"),
        (low_rank(BranchConfig("eva", 4, train_b=False)), "main.train_b"),
        (low_rank(BranchConfig("eva", 4), rho=0.5), "rho"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: LowRankConfig, field: str):
    assert field in {name for name, _ in options.check()}


def test_without_images_there_is_no_start():
    model = tiny_vit()
    with pytest.raises(ValueError, match="starts from data: only a training run has images"):
        inject(model, low_rank(BranchConfig("lora_null", 4), name="mine"))
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv: rank: .* takes 128 directions .* has 64"):
        inject(model, low_rank(BranchConfig("lora_ga", 64)), calibration=shown_images(model))
