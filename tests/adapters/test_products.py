"""KaSA, DeLoRA and HiRA: PEFT's outputs, gradients and merged weights at the same factors, and what each promises."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from recyclelora.adapters.config import DeloraConfig, HiraConfig, KasaConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.products.delora import DeLoRA
from recyclelora.adapters.products.hira import HiRA
from recyclelora.adapters.products.kasa import KaSA
from recyclelora.adapters.state import merge

from .models import tiny_vit, train_a_little

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LAYERS = ["blocks.0.attn.qkv", "blocks.0.mlp.fc2", "blocks.1.attn.proj"]  # tall, wide, square
TARGETS = [
    f"blocks.{block}.{linear}" for block in range(2) for linear in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
]
METHODS = {
    "kasa": KaSA(KasaConfig(rank=4, alpha=6.0, shrinkage=0.5, orthogonality=0.25)),
    "delora": DeLoRA(DeloraConfig(rank=4, strength=3.0)),
    "hira": HiRA(HiraConfig(rank=4)),
}
FACTORS = {
    "kasa": {"lora_a": "lora_A.default.weight", "lora_b": "lora_B.default.weight", "lora_e": "lora_diag.default"},
    "delora": {"lora_a": "delora_A.default", "lora_b": "delora_B.default", "lora_lambda": "delora_lambda.default"},
    "hira": {"lora_a": "hira_A.default", "lora_b": "hira_B.default"},
}
"""Our names of what trains, and PEFT's."""


@functools.cache
def weight(layer: str) -> torch.Tensor:
    return tiny_vit().get_submodule(layer).weight.detach()


def ours(name: str) -> tuple[nn.Module, Adapted]:
    model = tiny_vit().eval()
    return model, METHODS[name].apply(model, AdapterContext(seed=1))


def by_peft(name: str) -> nn.Module:
    """PEFT's tuner; it takes seconds to import: not while tests are collected."""
    import peft

    config = {
        "kasa": lambda: peft.LoraConfig(
            r=4, lora_alpha=6, target_modules=list(TARGETS), kasa_config=peft.KasaConfig(beta=0.5, gamma=0.25)
        ),
        "delora": lambda: peft.DeloraConfig(r=4, delora_lambda=3, target_modules=list(TARGETS)),
        "hira": lambda: peft.HiraConfig(r=4, target_modules=list(TARGETS)),
    }[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(tiny_vit().eval(), config).base_model


@pytest.mark.parametrize("name", METHODS)
def test_outputs_gradients_penalties_and_merged_weights_are_pefts_at_the_same_factors(name):
    (model, adapted), tuner = ours(name), by_peft(name)
    oracle, generator = tuner.model.eval(), torch.Generator().manual_seed(1)
    pairs = {
        f"{layer}.{part}": (model.get_parameter(f"{layer}.{part}"), oracle.get_parameter(f"{layer}.{other}"))
        for layer in TARGETS
        for part, other in FACTORS[name].items()
    }
    assert pairs.keys() == adapted.rules.keys()
    with torch.no_grad():
        for mine, its in pairs.values():
            mine += 0.2 * torch.randn(mine.shape, generator=generator)
            its.copy_(mine)
    outputs = [it.forward_features(IMAGES) for it in (model, oracle)]
    torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-5)
    losses = [output.square().mean() for output in outputs]
    if adapted.penalty is not None:
        penalties = adapted.penalty(), tuner._get_kasa_loss()
        torch.testing.assert_close(*penalties)
        losses = [loss + penalty for loss, penalty in zip(losses, penalties, strict=True)]
    for loss in losses:
        loss.backward()
    for key, (mine, its) in pairs.items():
        torch.testing.assert_close(mine.grad, its.grad, atol=1e-6, rtol=1e-4, msg=lambda text, key=key: key + text)
    merged = merge(model)
    for layer in TARGETS:
        other = oracle.get_submodule(layer)
        other.merge()
        torch.testing.assert_close(merged.get_submodule(layer).weight, other.base_layer.weight, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_kasa_starts_without_the_smallest_triplets(layer):
    model, _ = ours("kasa")
    u, s, vt = np.linalg.svd(weight(layer).double().numpy(), full_matrices=False)
    kept = (u[:, :-4] * s[:-4]) @ vt[:-4]
    np.testing.assert_allclose(model.get_submodule(layer).merged_weight().detach(), kept, atol=1e-7)


@pytest.mark.parametrize("layer", LAYERS)
def test_deloras_update_stays_within_its_bound_however_large_the_factors(layer):
    model, _ = ours("delora")
    made = model.get_submodule(layer)
    train_a_little(model)
    widest = weight(layer).norm(dim=0).max()
    lengths = []
    for size in (1.0, 1e3):
        with torch.no_grad():
            made.lora_a.mul_(size)
            made.lora_b.mul_(size)
        update = made.merged_weight().detach() - weight(layer)
        assert update.norm() <= made.lora_lambda.abs() * widest
        lengths.append(float(update.norm()))
    assert lengths[0] > 0.1 and lengths[1] == pytest.approx(lengths[0], rel=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_hiras_update_has_more_rank_than_its_factors(layer):
    model, _ = ours("hira")
    train_a_little(model)
    update = model.get_submodule(layer).merged_weight().detach() - weight(layer)
    assert torch.linalg.matrix_rank(update) > 32
    assert torch.linalg.matrix_rank(update / weight(layer), rtol=1e-5) == 4


def test_kasa_leaves_at_least_one_triplet_and_drops_its_penalty_with_its_weights():
    with pytest.raises(ValueError, match=r"rank\+1=65 at blocks.0.attn.qkv: allowed are 1 to 64"):
        KaSA(KasaConfig(rank=64)).apply(tiny_vit(), AdapterContext())
    free = KasaConfig(rank=4, shrinkage=0.0, orthogonality=0.0)
    assert KaSA(free).apply(tiny_vit(), AdapterContext()).penalty is None
