import copy

import pytest
import torch

from recyclelora.adapters.low_rank.layer import SplitQKV, split_rows

from .layers import EXACT, formula, linear, make, shake


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 5, 24), (2, 3, 5, 24), (0, 24)])
@pytest.mark.parametrize("inits", [("rrqr_minor", "rrqr_major"), ("svd_minor",)])
def test_forward_is_the_formula(shape, bias, inits):
    layer = make(linear(bias=bias), inits)
    shake(layer)
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), formula(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("init", EXACT)
@pytest.mark.parametrize("size", [(24, 40), (40, 24), (32, 32)])
def test_step_zero_is_the_frozen_layer(init, size):
    # float32 rounding of a product over at most 40 terms of size one: 40 * 2^-24 = 2.4e-6.
    base = linear(*size)
    x = torch.randn(7, size[0])
    torch.testing.assert_close(make(base, (init, "rrqr_major"))(x), base(x), atol=3e-6, rtol=0)


def test_two_forwards_and_train_or_eval_are_the_same():
    layer = make(linear())
    shake(layer)
    x = torch.randn(6, 24)
    first = layer.train()(x)
    for other in (layer(x), layer.eval()(x), layer.eval()(x), layer.train()(x)):
        assert torch.equal(first, other)


def test_the_frozen_weight_and_the_pretrained_one_never_change():
    base = linear()
    before = copy.deepcopy(base.state_dict())
    layer = make(base, train_bias=True)
    frozen = layer.weight.detach().clone()
    optimizer = torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        layer(torch.randn(6, 24)).square().mean().backward()
        optimizer.step()
        layer.eval(), layer.merged_weight(), layer.delta_weight(), layer.train()
    assert torch.equal(layer.weight, frozen)
    assert not torch.equal(layer.bias, before["bias"])
    assert all(torch.equal(base.state_dict()[key], before[key]) for key in before)


@pytest.mark.parametrize("residual", [True, False])
def test_merged_and_delta_weight(residual):
    base = linear()
    inits = ("rrqr_minor", "rrqr_major") if residual else ("kaiming",)
    layer = make(base, inits, residual=residual)
    torch.testing.assert_close(layer.delta_weight(), torch.zeros(40, 24), atol=1e-7, rtol=0)
    shake(layer)
    x = torch.randn(6, 24)
    torch.testing.assert_close(layer.merged()(x), layer(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(base.weight + layer.delta_weight(), layer.merged_weight(), atol=1e-6, rtol=1e-5)


def test_without_a_residual_the_weight_is_the_pretrained_one():
    base = linear()
    assert torch.equal(make(base, ("kaiming",), residual=False).weight, base.weight)
    assert torch.equal(make(base, ("kaiming",), residual=True).weight, base.weight)


def test_overlapping_branches_subtract_both():
    base = linear()
    layer = make(base, ("rrqr_major", "rrqr_major"), (4, 2))
    torch.testing.assert_close(layer.merged_weight(), base.weight.detach(), atol=1e-7, rtol=1e-6)


def test_split_qkv_concatenates_three_layers():
    base = linear(24, 72)
    parts = {name: make(part) for name, part in split_rows(base).items()}
    split = SplitQKV(**parts)
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(split(x), base(x), atol=3e-6, rtol=0)
    assert (split.in_features, split.out_features) == (24, 72)
    shake(split)
    torch.testing.assert_close(split.merged()(x), split(x), atol=1e-5, rtol=1e-5)


def test_initial_factors_stay_out_of_the_state_dict():
    layer = make(linear())
    assert set(layer.state_dict()) == {"weight", "bias"} | {
        f"{branch}.lora_{factor}" for branch in ("main", "sub") for factor in "ab"
    }
    shake(layer)
    assert not torch.equal(layer.main.lora_b, layer.main.initial.b)


def test_printing_shows_ranks_and_scale():
    assert "ranks={'main': 4, 'sub': 2}, scale=0.166667" in repr(make(linear()))
