"""LoRA-XS, SVFT and OPLoRA by their formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recyclelora.adapters.config import LoraXsConfig, OploraConfig, SvftConfig
from recyclelora.adapters.fixed_directions import SVFT, LoRAXS, OPLoRA
from recyclelora.adapters.method import AdapterContext

from .models import tiny_vit, train_a_little

LAYERS = ["blocks.0.attn.qkv", "blocks.0.mlp.fc2", "blocks.1.attn.proj"]  # tall, wide, square
METHODS = {
    "lora_xs": LoRAXS(LoraXsConfig(rank=4)),
    "svft": SVFT(SvftConfig()),
    "oplora": OPLoRA(OploraConfig(rank=4, alpha=6.0, protected=3)),
}


def trained(name: str):
    model = tiny_vit()
    METHODS[name].apply(model, AdapterContext(seed=1))
    train_a_little(model)
    return model


def parts(layer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    weight = tiny_vit().get_submodule(layer).weight.detach().double().numpy()
    return weight, *np.linalg.svd(weight, full_matrices=False)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", METHODS)
def test_the_layer_computes_its_formula(name, layer):
    made = trained(name).get_submodule(layer)
    weight, u, s, vt = parts(layer)
    own = {key: value.detach().double().numpy() for key, value in made.named_parameters()}
    if name == "svft":
        expected = (u * (s + own["coefficients"])) @ vt
    elif name == "lora_xs":
        signs = np.sign((u[:, :4] * made.left.double().numpy()).sum(0))
        expected = weight + (u[:, :4] * s[:4] * signs) @ own["coefficients"] @ (signs[:, None] * vt[:4])
    else:
        left, right = np.eye(len(u)) - u[:, :3] @ u[:, :3].T, np.eye(vt.shape[1]) - vt[:3].T @ vt[:3]
        expected = weight + 1.5 * left @ own["lora_b"] @ own["lora_a"] @ right
    assert np.abs(expected - weight).max() > 1e-4
    np.testing.assert_allclose(made.merged_weight().detach().numpy(), expected, atol=2e-6)
    x = torch.randn(5, made.in_features)
    y = x.double().numpy() @ expected.T + made.bias.double().numpy()
    np.testing.assert_allclose(made(x).detach().numpy(), y, atol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_oplora_protects_stays_to_rounding(layer):
    made = trained("oplora").get_submodule(layer)
    weight, u, _, vt = parts(layer)
    update = made.merged_weight().detach().numpy() - weight
    inside = np.linalg.norm(u[:, :3].T @ update) + np.linalg.norm(update @ vt[:3].T)
    assert inside < 1e-5 * np.linalg.norm(update)


def test_lora_xs_starts_by_its_seed_from_the_published_spread_of_1e_5():
    def coefficients(seed: int) -> torch.Tensor:
        model = tiny_vit()
        METHODS["lora_xs"].apply(model, AdapterContext(seed=seed))
        return torch.cat([p.detach().flatten() for n, p in model.named_parameters() if n.endswith("coefficients")])

    first = coefficients(1)
    assert torch.equal(first, coefficients(1)) and not torch.equal(first, coefficients(2))
    assert len(first) == 8 * 16 and 0.8e-5 < first.std() < 1.2e-5


def test_more_directions_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"rank\+protected=70 at blocks.0.attn.qkv: allowed are 1 to 64"):
        OPLoRA(OploraConfig(rank=4, protected=66)).apply(tiny_vit(), AdapterContext())
