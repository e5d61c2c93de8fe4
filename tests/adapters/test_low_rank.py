import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recyclelora.adapters.init import INITIALIZERS, LayerWeight, branch_rng
from recyclelora.adapters.low_rank import Branch, LowRankLinear, SplitQKV, split_rows
from recyclelora.adapters.rrqr import rrqr

SCALE = 1 / 6


def make(linear: nn.Linear, inits=("rrqr_minor", "rrqr_major"), ranks=(4, 2), **options) -> LowRankLinear:
    k = min(linear.weight.shape)
    source = LayerWeight(linear.weight, SCALE, rrqr(linear.weight.detach().float().numpy(), k, k))
    branches = {
        name: Branch(INITIALIZERS[init](source, rank, branch_rng(0, "l", name)), linear.in_features)
        for name, init, rank in zip(("main", "sub"), inits, ranks, strict=False)
    }
    return LowRankLinear(linear, branches, scale=SCALE, **options)


def linear(in_features=24, out_features=40, bias=True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_features, out_features, bias=bias)


def shake(layer: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_" in name:
                parameter += torch.randn(parameter.shape, generator=generator)


def formula(layer: LowRankLinear, x: torch.Tensor) -> torch.Tensor:
    y = x @ layer.weight.T + (0 if layer.bias is None else layer.bias)
    for branch in layer.branches().values():
        y = y + layer.scale * ((x @ branch.lora_a.T) @ branch.lora_b.T)
    return y


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 5, 24), (2, 3, 5, 24), (0, 24)])
@pytest.mark.parametrize("inits", [("rrqr_minor", "rrqr_major"), ("svd_minor",)])
def test_forward_is_the_formula(shape, bias, inits):
    layer = make(linear(bias=bias), inits)
    shake(layer)
    x = torch.randn(shape)
    torch.testing.assert_close(layer(x), formula(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("init", INITIALIZERS)
@pytest.mark.parametrize("size", [(24, 40), (40, 24), (32, 32)])
def test_step_zero_is_the_frozen_layer(init, size):
    # float32 rounding of a product over at most 40 terms of size one: 40 * 2^-24 = 2.4e-6.
    base = linear(*size)
    x = torch.randn(7, size[0])
    torch.testing.assert_close(make(base, (init, "rrqr_major"))(x), base(x), atol=3e-6, rtol=0)


def test_gradients_are_those_of_the_formula():
    layer = make(linear()).double()
    shake(layer)
    x = torch.randn(6, 24, dtype=torch.float64, requires_grad=True)
    wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
    assert len(wanted) == 5
    upstream = torch.randn(6, 40, dtype=torch.float64)
    found = torch.autograd.grad(layer(x), wanted, upstream)
    expected = torch.autograd.grad(formula(layer, x), wanted, upstream)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right)


def test_autocast_keeps_its_dtype_and_the_adapters_float32():
    base = linear()
    layer = make(base)
    x = torch.randn(6, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16 == base(x).dtype
        torch.testing.assert_close(y.float(), base(x).float(), atol=3e-2, rtol=3e-2)
    y.float().sum().backward()
    assert layer.main.lora_a.dtype == layer.main.lora_a.grad.dtype == torch.float32


def test_a_bfloat16_backbone_keeps_float32_adapters():
    base = linear().bfloat16()
    layer = make(base)
    assert layer.weight.dtype == torch.bfloat16 and layer.main.lora_b.dtype == torch.float32
    y = layer(torch.randn(6, 24, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert layer.merged_weight().dtype == torch.bfloat16


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


def test_gradient_checkpointing_and_compile_give_the_same_gradients():
    layer = make(linear())
    shake(layer)
    x = torch.randn(6, 24, requires_grad=True)
    wanted = [p for p in layer.parameters() if p.requires_grad]
    plain = torch.autograd.grad(layer(x).square().sum(), wanted)
    recomputed = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), wanted)
    traced = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled = torch.autograd.grad(traced(x).square().sum(), wanted)
    for left, right, third in zip(plain, recomputed, compiled, strict=True):
        torch.testing.assert_close(left, right)
        torch.testing.assert_close(left, third)


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
