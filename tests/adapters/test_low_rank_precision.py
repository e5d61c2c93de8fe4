"""What rounding does to the start of training, to small updates and to merging; nothing else may differ."""

import copy
import io

import pytest
import torch
from low_rank import inject, low_rank
from torch import nn

from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.adapters.low_rank.layer import Branch, SplitQKV, split_rows
from recyclelora.adapters.state import initial_state

from .layers import EXACT, SCALE, linear, make, shake, wanted
from .models import load, stored, tiny_vit, train_a_little

LOW = (torch.bfloat16, torch.float16)
RECYCLE = low_rank(main=BranchConfig("rrqr_minor", 4), sub=BranchConfig("rrqr_major", 2))


def tokens(dtype=torch.float32) -> torch.Tensor:
    return torch.randn(7, 24, generator=torch.Generator().manual_seed(2)).to(dtype)


def exact_weight(layer: nn.Module, pretrained: torch.Tensor) -> torch.Tensor:
    """W0 + s (B A - B0 A0), float64."""
    changes = (product(branch) - initial_product(branch) for branch in layer.branches().values())
    return pretrained.double() + layer.scale * sum(changes)


def product(branch: Branch) -> torch.Tensor:
    """B A."""
    return branch.lora_b.detach().double() @ branch.lora_a.detach().double()


def initial_product(branch: Branch) -> torch.Tensor:
    """B0 A0, where A0 has a one in each row or is stored whole."""
    b, a, ones = branch.initial.b.double(), branch.initial.a, branch.initial.a_index
    return b @ (torch.eye(branch.lora_a.shape[1], dtype=torch.float64)[ones] if a is None else a.double())


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("init", EXACT)
def test_a_low_precision_layer_starts_as_the_frozen_one_bit_for_bit(init, dtype, bias):
    base = linear(bias=bias).to(dtype)
    layer = make(base, (init, "rrqr_major"))
    assert torch.equal(layer.weight, base.weight)
    y, x = layer(tokens(dtype)), tokens(dtype)
    assert y.dtype == dtype and torch.equal(y, base(x))
    assert torch.equal(layer.merged_weight(), base.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), base(x))


def test_autocast_starts_within_its_own_rounding():
    base, x = linear(), tokens()
    layer = make(base)
    with torch.autocast("cpu", torch.bfloat16):
        difference = (layer(x).float() - base(x).float()).abs()
    # x, W_res, A and B are rounded to 8 bits each (2^-9), and so is the output, twice.
    sizes = sum(initial_product(branch).abs() for branch in layer.branches().values()) * SCALE
    size = x.double().abs() @ (base.weight.double().abs() + 2 * sizes).T + base.bias.abs()
    assert (difference <= 4 * 2**-9 * size).all()
    assert difference.max() > 0  # a residual rounded to bfloat16 is not W0


@pytest.mark.parametrize("init", EXACT)
def test_a_layer_that_subtracts_starts_as_the_frozen_one_under_autocast_bit_for_bit(init):
    base, x = linear(), tokens()
    layer = make(base, (init, "rrqr_major"), subtract=True)
    assert torch.equal(layer.weight, base.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), base(x))
    assert torch.equal(layer(x), base(x)) and torch.equal(layer.merged_weight(), base.weight)
    assert torch.equal(copy.deepcopy(layer).bfloat16()(x.bfloat16()), base.bfloat16()(x.bfloat16()))


@pytest.mark.parametrize("init", ["rrqr_minor", "svd_major", "orthonormal"])
def test_the_first_step_under_autocast_is_the_step_and_not_its_rounding(init):
    """One step of 1e-4 on every entry, beside entries of B near 0.2 and ones of A, whose neighbours are 8e-3 away."""
    x, noise = tokens(), {}
    for subtract in (False, True):
        layer = make(linear(bias=False), (init,), subtract=subtract)
        with torch.no_grad():
            layer.weight.zero_()
        step = copy.deepcopy(layer)
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for parameter in wanted(step):
                parameter += 1e-4 * torch.randn(parameter.shape, generator=generator).sign()
            exact = step.double()(x.double()) - layer.double()(x.double())
            with torch.autocast("cpu", torch.bfloat16):
                found = step.float()(x).double() - layer.float()(x).double()
        noise[subtract] = float((found - exact).norm() / exact.norm())
    assert noise[True] < 0.01 < 0.3 < noise[False]


@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_outputs_are_as_good_as_the_format(dtype):
    base = linear().to(dtype)
    layer, x = make(base), tokens(dtype)
    shake(layer)
    found = layer(x).double()
    expected = x.double() @ exact_weight(layer, base.weight).T + base.bias.double()
    assert (found - expected).norm() < 2 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("dtype", LOW)
def test_updates_far_below_the_format_s_resolution_arrive(dtype):
    base = linear(bias=False).to(dtype)
    layer, x = make(base), tokens(dtype)
    shake(layer, 1e-5)  # the entries of A are ones, whose neighbours in bfloat16 are 4e-3 away
    layer.weight.data.zero_()  # leaves the change alone
    change = SCALE * sum(product(branch) - initial_product(branch) for branch in layer.branches().values())
    expected = x.double() @ change.T
    assert 0 < (layer(x).double() - expected).norm() < 4 * torch.finfo(dtype).eps * expected.norm()


@pytest.mark.parametrize("dtype", LOW)
def test_training_a_low_precision_layer_leaves_its_weight_alone(dtype):
    base = linear().to(dtype)
    layer = make(base, train_bias=True)
    assert all(parameter.dtype == torch.float32 for parameter in wanted(layer))
    optimizer = torch.optim.AdamW(wanted(layer), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        layer(tokens(dtype)).float().square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.dtype == torch.float32 and parameter.grad.any() for parameter in wanted(layer))
    assert torch.equal(layer.weight, base.weight)
    assert not torch.equal(layer.bias, base.bias.float())


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("residual", [True, False])
def test_a_merged_weight_is_rounded_once(dtype, residual):
    base = linear().to(dtype)
    layer = make(base, residual=residual)
    shake(layer, 0.1)
    before = copy.deepcopy(layer.state_dict())
    merged, exact = layer.merged_weight(), exact_weight(layer, base.weight)
    if not residual:
        exact = exact + SCALE * sum(initial_product(branch) for branch in layer.branches().values())
    assert merged.dtype == dtype
    # W_res in float32 has been rounded before, too.
    slack = 2**-24 * layer.weight.double().abs() if dtype == torch.float32 else 0
    assert (
        (merged.double() - exact).abs() <= torch.finfo(dtype).eps / 2 * exact.abs() + slack + 1e-7 * (dtype in LOW)
    ).all()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert merged.data_ptr() != layer.weight.data_ptr()


@pytest.mark.parametrize("dtype", LOW)
def test_a_merged_low_precision_layer_computes_the_same(dtype):
    base = linear().to(dtype)
    layer, x = make(base, train_bias=True), tokens(dtype)
    shake(layer, 0.1)
    with torch.no_grad():
        layer.bias += 0.1
    merged = layer.merged()
    assert {parameter.dtype for parameter in merged.parameters()} == {dtype}
    size = x.double().abs() @ merged.weight.double().abs().T + 1
    # The merged weight is rounded (half an eps of each entry), and the outputs of both once or twice.
    assert ((merged(x) - layer(x)).abs() <= 2 * torch.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("init", ["rrqr_minor", "svd_major", "kaiming"])
def test_a_model_converted_after_the_injection_rounds_the_pretrained_weight(dtype, init):
    base = linear()
    layer = make(base, (init,), train_bias=True).to(dtype)
    base = base.to(dtype)
    assert torch.equal(layer.weight, base.weight) and layer.weight.dtype == dtype
    assert {parameter.dtype for parameter in wanted(layer)} == {torch.float32}
    assert torch.equal(layer(tokens(dtype)), base(tokens(dtype)))
    wide = copy.deepcopy(layer).float()
    expected = tokens() @ base.weight.float().T + linear().bias  # the trained bias was never rounded
    torch.testing.assert_close(wide(tokens()), expected, atol=3e-6, rtol=0)


def test_a_trained_layer_keeps_its_update_when_it_is_converted():
    base = linear()
    layer = make(base)
    shake(layer, 0.1)
    expected, factors = layer.delta_weight(), [parameter.clone() for parameter in wanted(layer)]
    layer.half().bfloat16().to("cpu", torch.float16)
    assert torch.equal(layer.delta_weight(), expected)
    assert all(torch.equal(*pair) for pair in zip(wanted(layer), factors, strict=True))
    x = tokens(torch.float16)
    y = x.double() @ (layer.weight.double() + expected.double()).T + base.bias.double()
    assert (layer(x).double() - y).norm() < 2**-9 * y.norm()


def test_double_widens_everything():
    layer = make(linear()).double()
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}


@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_layers_can_be_copied_and_pickled(dtype):
    layer, x = make(linear().to(dtype)), tokens(dtype)
    shake(layer)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(x), layer(x))
        assert set(other.state_dict()) == set(make(linear()).state_dict())


def test_split_qkv_rounds_its_input_once():
    split = SplitQKV(**{name: make(part) for name, part in split_rows(linear(24, 72)).items()})
    x, kept = tokens().requires_grad_(), set()
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.add((tensor.data_ptr(), tensor.dtype, tuple(tensor.shape))), lambda tensor: tensor
        ),
    ):
        assert split(x).dtype == torch.bfloat16
    assert sum(dtype == torch.bfloat16 and shape == (7, 24) for _, dtype, shape in kept) == 1


@pytest.mark.parametrize("split_qkv", [False, True])
def test_a_bfloat16_model_starts_as_it_was_and_resumes_as_it_is(split_qkv):
    spec = low_rank(RECYCLE.main, RECYCLE.sub, split_qkv=split_qkv)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pretrained, model, resumed = (tiny_vit().bfloat16() for _ in range(3))
    inject(model, spec)
    with torch.no_grad():
        assert torch.equal(model.forward_features(images.bfloat16()), pretrained.forward_features(images.bfloat16()))
    with torch.autocast("cpu", torch.bfloat16):
        train_a_little(model)
    inject(resumed, spec, initial=initial_state(model))
    load(resumed, stored(model))
    with torch.no_grad():
        features = model.forward_features(images.bfloat16())
        assert torch.equal(resumed.forward_features(images.bfloat16()), features)
        assert not torch.equal(features, pretrained.forward_features(images.bfloat16()))


def with_form(form: str) -> nn.Module:
    """A model whose layers hold W0 or W_res; the weights are the same in all of them."""
    model = tiny_vit()
    spec = low_rank(RECYCLE.main, RECYCLE.sub, mixed_precision="subtract" if form == "autocast" else "fold")
    inject(model.bfloat16() if form == "bfloat16" else model, spec, autocast=form == "autocast")
    return model.bfloat16() if form == "converted" else model


HOLDS = {"float32": "W0 - s B0 A0", "autocast": "W0", "bfloat16": "W0", "converted": "W0"}


@pytest.mark.parametrize("saved", HOLDS)
@pytest.mark.parametrize("loaded", HOLDS)
def test_a_state_dict_says_which_weight_it_holds(saved, loaded):
    source, target = with_form(saved), with_form(loaded)
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    if HOLDS[saved] == HOLDS[loaded]:
        target.load_state_dict(state)
        kept, given = (model.blocks[0].attn.qkv.weight for model in (target, source))
        assert torch.equal(kept, given.to(kept.dtype))
        return
    before = target.blocks[0].attn.qkv.weight.clone()
    with pytest.raises(RuntimeError) as refusal:
        target.load_state_dict(state, strict=False)
    assert (
        f"blocks.0.attn.qkv.weight: the state holds {HOLDS[saved]}, this layer {HOLDS[loaded]}; give both models"
        in str(refusal.value)
    )
    assert torch.equal(target.blocks[0].attn.qkv.weight, before)


def test_a_state_that_does_not_say_it_is_taken_only_where_it_changes_nothing():
    model = with_form("float32")
    unmarked = dict(model.state_dict())
    with_form("float32").load_state_dict(unmarked)
    with pytest.raises(RuntimeError, match="the state holds W0 or W0 - s B0 A0, it does not say which, this layer W0;"):
        with_form("autocast").load_state_dict(unmarked)


def test_without_a_residual_there_is_nothing_to_say():
    plain = low_rank(BranchConfig("kaiming", 4), residual=False)
    source, target = tiny_vit(), tiny_vit().bfloat16()
    inject(source, plain)
    inject(target, plain)
    target.load_state_dict(source.state_dict())
    target.load_state_dict(dict(source.state_dict()))
