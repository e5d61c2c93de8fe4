import copy
import io

import pytest
import torch
from low_rank import inject, low_rank
from torch import nn

from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.state import (
    ParameterRule,
    initial_state,
    low_rank_layers,
    merge,
)

from .models import load, stored, tiny_vit, train_a_little

RECYCLE = low_rank(main=BranchConfig("rrqr_minor", 4), sub=BranchConfig("rrqr_major", 2, lr_mult=0.5))
BIASED = low_rank(
    main=BranchConfig("svd_minor", 4, lr_mult=0.5, lr_mult_b=16.0, weight_decay=0.05, train_a=False),
    split_qkv=True,
    train_bias=True,
    blocks="1:",
)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def adapted(spec=RECYCLE, train=True) -> nn.Module:
    model = tiny_vit()
    inject(model, spec)
    if train:
        train_a_little(model)
    return model


@pytest.mark.parametrize("spec", [RECYCLE, BIASED])
@pytest.mark.parametrize("training", [True, False])
def test_a_state_saved_in_any_mode_loads_to_the_same_output(spec, training):
    model = adapted(spec).train(training)
    state, initial = stored(model), initial_state(model)
    expected = model.eval().forward_features(IMAGES)
    model.eval()
    fresh = tiny_vit()
    inject(fresh, spec, initial=initial)
    load(fresh.train(training), state)
    assert torch.equal(fresh.eval().forward_features(IMAGES), expected)
    assert torch.equal(fresh.eval().forward_features(IMAGES), expected)


def test_what_is_saved():
    model = adapted(BIASED)
    layers = ("attn.qkv.q", "attn.qkv.k", "attn.qkv.v", "attn.proj", "mlp.fc1", "mlp.fc2")
    names = {f"blocks.1.{layer}.{part}" for layer in layers for part in ("bias", "main.lora_a", "main.lora_b")}
    assert set(stored(model)) == {name for name in names if not name.endswith("lora_a")}
    assert set(initial_state(model)) == {name for name in names if not name.endswith("bias")}


def test_zero_one_rows_are_saved_as_positions():
    initial = initial_state(adapted())
    assert initial["blocks.0.mlp.fc1.main.lora_a"].dtype == torch.int64
    assert initial["blocks.0.mlp.fc1.main.lora_a"].shape == (4,)
    assert initial["blocks.0.mlp.fc1.main.lora_b"].shape == (256, 4)


def test_saved_states_do_not_follow_the_training():
    model = adapted(train=False)
    state, initial = stored(model), initial_state(model)
    before = copy.deepcopy(state)
    train_a_little(model)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert all(torch.equal(initial[name], value) for name, value in initial_state(model).items())
    assert not torch.equal(stored(model)["blocks.0.mlp.fc1.main.lora_b"], state["blocks.0.mlp.fc1.main.lora_b"])


@pytest.mark.parametrize("spec", [RECYCLE, BIASED])
def test_merging_gives_an_ordinary_model_and_leaves_the_adapted_one(spec):
    model = adapted(spec).eval()
    before = copy.deepcopy(model.state_dict())
    expected = model.forward_features(IMAGES)
    merged = merge(model)
    assert not list(low_rank_layers(merged))
    assert {name for name, _ in merged.named_parameters()} == {name for name, _ in tiny_vit().named_parameters()}
    torch.testing.assert_close(merged.forward_features(IMAGES), expected, atol=1e-4, rtol=1e-4)
    for parameter in merged.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.forward_features(IMAGES), expected)


def test_an_untrained_adapter_merges_to_the_pretrained_model():
    merged, pretrained = merge(adapted(train=False)), tiny_vit()
    for name, value in pretrained.state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], value, atol=1e-8, rtol=1e-6)


def test_parameter_rules():
    rules = inject(tiny_vit(), RECYCLE).rules
    assert rules["blocks.0.mlp.fc1.main.lora_a"] == ParameterRule(1.0, 0.0, "main.lora_a")
    assert rules["blocks.0.mlp.fc1.sub.lora_b"] == ParameterRule(0.5, 0.0, "sub.lora_b")
    assert len(rules) == 2 * 4 * 4
    biased = inject(tiny_vit(), BIASED).rules
    assert biased["blocks.1.attn.qkv.v.main.lora_b"] == ParameterRule(8.0, 0.05, "main.lora_b")
    assert biased["blocks.1.attn.qkv.v.bias"] == ParameterRule(0.5, 0.05, "bias")


def test_adapted_models_can_be_copied_and_pickled():
    model = adapted().eval()
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        assert torch.equal(other.forward_features(IMAGES), model.forward_features(IMAGES))
        layer = next(module for module in other.modules() if isinstance(module, LowRankLinear))
        assert torch.isfinite(layer.delta_weight()).all()


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_factors_that_start_at_zero_are_not_stored_and_come_back_from_the_seed(init):
    spec = low_rank(BranchConfig("rrqr_minor", 4), BranchConfig(init, 2))
    model, again = tiny_vit(), tiny_vit()
    inject(model, spec, seed=5)
    initial = initial_state(model)
    assert {name.split(".")[-2] for name in initial} == {"main"}
    inject(again, spec, seed=5, initial=initial)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    frozen = tiny_vit()
    inject(frozen, low_rank(BranchConfig(init, 2, train_a=False)))
    assert len(initial_state(frozen)) == 2 * 4 * 2  # a frozen A is nowhere else
