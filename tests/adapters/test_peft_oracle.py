"""PEFT as the oracle: the same factors give the same outputs and gradients; the same weight gives the same factors."""

import warnings

import pytest
import torch
from low_rank import inject, low_rank
from torch import nn

from recyclelora.adapters.low_rank.config import BranchConfig
from recyclelora.adapters.state import low_rank_layers, merge

from .models import stored, tiny_vit

RANK, ALPHA = 4, 6.0
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# name -> ours, PEFT's options
METHODS = {
    "lora": (low_rank(BranchConfig("kaiming", RANK), alpha=ALPHA), {}),
    "lora_gaussian": (low_rank(BranchConfig("gaussian", RANK), alpha=ALPHA), {"init_lora_weights": "gaussian"}),
    "rslora": (low_rank(BranchConfig("kaiming", RANK), alpha=ALPHA, scale_rule="sqrt_rank"), {"use_rslora": True}),
    "pissa": (low_rank(BranchConfig("svd_major", RANK), alpha=ALPHA), {"init_lora_weights": "pissa"}),
    "olora": (low_rank(BranchConfig("qr", RANK), alpha=ALPHA), {"init_lora_weights": "olora"}),
    "orthogonal": (low_rank(BranchConfig("orthogonal", RANK), alpha=ALPHA), {"init_lora_weights": "orthogonal"}),
}


def ours(method: str) -> nn.Module:
    model = tiny_vit().eval()
    inject(model, METHODS[method][0])
    return model


def theirs(method: str) -> nn.Module:
    return by_peft({"main": {"r": RANK, "lora_alpha": ALPHA, **METHODS[method][1]}})


def by_peft(adapters: dict[str, dict[str, object]]) -> nn.Module:
    """The same model with PEFT's adapters, all active. PEFT takes seconds to import: not while tests are collected."""
    import peft

    linears = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    targets = [f"blocks.{block}.{linear}" for block in range(2) for linear in linears]
    configs = {name: peft.LoraConfig(target_modules=targets, **options) for name, options in adapters.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(tiny_vit().eval(), configs["main"], adapter_name="main")
        for name in list(configs)[1:]:
            model.add_adapter(name, configs[name])
    model.base_model.set_adapter(list(configs))
    return model.base_model.model.eval()


def their_factors(model: nn.Module) -> dict[str, nn.Parameter]:
    """PEFT's factors under our names."""
    factors = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            layer, factor, branch = name.removesuffix(".weight").rsplit(".", 2)
            factors[f"{layer}.{branch}.{factor.lower()}"] = parameter
    return factors


def gradients(model: nn.Module, parameters: list[nn.Parameter], images: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(model.forward_features(images).exp().mean(), [*parameters, images]))


def assert_the_same(model: nn.Module, oracle: nn.Module) -> None:
    """Outputs and gradients, after the oracle's factors moved away from the start and were copied over."""
    factors, own = their_factors(oracle), dict(model.named_parameters())
    assert set(factors) == set(stored(model))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in factors.items():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            own[name].copy_(parameter)
        for name, layer in low_rank_layers(model):  # the start may differ: a random one, or the signs of vectors
            layer.weight.copy_(oracle.get_submodule(name).base_layer.weight)
    images = IMAGES.clone().requires_grad_()
    torch.testing.assert_close(model.forward_features(images), oracle.forward_features(images), atol=2e-5, rtol=1e-5)
    found = gradients(model, [own[name] for name in factors], images)
    expected = gradients(oracle, list(factors.values()), images)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_factors_give_the_same_outputs_and_gradients(method):
    assert_the_same(ours(method), theirs(method))


def test_two_branches_are_two_active_adapters():
    model = tiny_vit().eval()
    inject(model, low_rank(BranchConfig("rrqr_minor", 4), BranchConfig("rrqr_major", 2)))
    # RecycleLoRA's one scale 1 / (4 + 2); PEFT's alpha is divided by the rank of each adapter.
    adapters = {"main": {"r": 4, "lora_alpha": 4 / 6}, "sub": {"r": 2, "lora_alpha": 2 / 6}}
    assert_the_same(model, by_peft(adapters))


@pytest.mark.parametrize("method", ["pissa", "olora"])
def test_the_same_weight_gives_the_same_start(method):
    model, oracle = ours(method), theirs(method)
    factors = their_factors(oracle)
    for name, layer in low_rank_layers(model):
        a, b = factors[f"{name}.main.lora_a"], factors[f"{name}.main.lora_b"]
        torch.testing.assert_close(layer.main.lora_b @ layer.main.lora_a, b @ a, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(layer.weight, oracle.get_submodule(name).base_layer.weight, atol=2e-5, rtol=1e-4)
        assert layer.scale == oracle.get_submodule(name).scaling["main"]


def test_lora_plus_gives_b_the_same_multiple_of_the_learning_rate():
    spec = low_rank(BranchConfig("kaiming", RANK, lr_mult_b=16.0), alpha=ALPHA)
    model = tiny_vit()
    rules = inject(model, spec).rules
    oracle = theirs("lora")
    from peft.optimizers import create_loraplus_optimizer

    optimizer = create_loraplus_optimizer(
        oracle, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.0
    )
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in their_factors(oracle).items():
        assert rates[id(parameter)] == pytest.approx(1e-3 * rules[name].lr_mult)


def test_merging_gives_the_weights_that_peft_merges():
    model, oracle = ours("lora"), theirs("lora")
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in their_factors(oracle).items():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
            own[name].copy_(parameter)
    merged = merge(model)
    for name, _ in low_rank_layers(model):
        layer = oracle.get_submodule(name)
        layer.merge()
        torch.testing.assert_close(merged.get_submodule(name).weight, layer.base_layer.weight, atol=1e-6, rtol=1e-5)
