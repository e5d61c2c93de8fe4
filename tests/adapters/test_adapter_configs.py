"""Every shipped adapter configuration composes, and changes a small backbone."""

import pytest
import torch

from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.state import low_rank_layers
from recyclelora.config.build import build_backbone
from recyclelora.config.compose import ConfigError, home
from recyclelora.config.testing import shown_images

ADAPTERS = sorted(path.stem for path in (home() / "conf" / "adapter").glob("*.yaml"))
DEEP = ["backbone=vit_tiny_test", "backbone.model_args.depth=10", "data.augment.crop=[32,32]"]  # published: block 8 on
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def adapted(make_config, *overrides):
    config = make_config(*DEEP, *overrides)
    model = build_backbone(config, None).model.eval()
    context = AdapterContext(config.seed, 10, calibration=shown_images(model))
    return config.adapter, model, config.adapter.method().apply(model, context)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_shipped_adapter_composes_and_adapts(make_config, name):
    smaller = ["adapter.main.rank=16"] if name == "lora_equal" else []  # the layers are 32 wide
    adapter, model, result = adapted(make_config, f"adapter={name}", *smaller)
    assert adapter.name == name
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == set(result.rules)
    assert bool(trainable) == (name != "frozen")
    assert torch.isfinite(model.forward_features(IMAGES)).all()


@pytest.mark.parametrize(
    ("name", "main", "sub"),
    [
        ("recyclelora", "rrqr_minor", "rrqr_major"),
        ("recyclelora_swapped", "rrqr_major", "rrqr_minor"),
        ("recyclelora_random", "orthonormal", "orthonormal"),
        ("recyclelora_values", "rrqr_minor_values", "rrqr_major_values"),
        ("recyclelora_strong", "rrqr_minor", "rrqr_major"),
        ("recyclelora_fixed", "rrqr_minor", "rrqr_major"),
    ],
)
def test_ablations_change_one_thing(make_config, name, main, sub):
    chosen = make_config(f"adapter={name}", "adapter/split=real2real", "adapter.main.rank=24").adapter
    assert (chosen.main.init, chosen.sub.init) == (main, sub)
    assert (chosen.main.rank, chosen.sub.rank, chosen.sub.lr_mult) == (24, 2, 0.5)
    assert chosen.scale == (pytest.approx(1 / 36) if name == "recyclelora_fixed" else None)


def test_soma_released_leaves_the_first_blocks_and_the_weights_alone(make_config):
    plain = build_backbone(make_config(*DEEP), None).model.eval()
    _, model, result = adapted(make_config, "adapter=soma_released")
    layers = dict(low_rank_layers(model))
    assert {name.split(".")[1] for name in layers} == {"8", "9"} and len(layers) == 2 * 6
    assert all(not isinstance(module, LowRankLinear) for module in model.blocks[:8].modules())
    qkv = torch.cat([layers[f"blocks.8.attn.qkv.{part}"].weight for part in "qkv"])
    assert torch.equal(qkv, plain.blocks[8].attn.qkv.weight)
    assert not torch.allclose(model.forward_features(IMAGES), plain.forward_features(IMAGES), atol=1e-4)
    assert {(rule.lr_mult, rule.weight_decay) for rule in result.rules.values()} == {(0.5, 0.05)}


def test_mica_trains_a_alone(make_config):
    plain = build_backbone(make_config(*DEEP), None).model.eval()
    _, model, result = adapted(make_config, "adapter=mica")
    assert all(name.endswith("main.lora_a") for name in result.rules) and len(result.rules) == 40
    assert torch.equal(model.forward_features(IMAGES), plain.forward_features(IMAGES))
    layer = model.blocks[0].mlp.fc1
    u, _, _ = torch.linalg.svd(plain.blocks[0].mlp.fc1.weight.double(), full_matrices=False)
    torch.testing.assert_close((u[:, -16:].T @ layer.main.lora_b.double()).abs(), torch.eye(16).double())


@pytest.mark.parametrize(("blocks", "first"), [("8:", 8), ("2:", 2), ("-1:", 9)])
def test_first_blocks_are_skipped(make_config, blocks, first):
    _, model, _ = adapted(make_config, "adapter=recyclelora", f"adapter.blocks='{blocks}'", "adapter.main.rank=4")
    assert {int(name.split(".")[1]) for name, _ in low_rank_layers(model)} == set(range(first, 10))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("adapter.pivoting=strng", "adapter.pivoting='strng': must be one of greedy, strong (did you mean strong?)"),
        ("adapter.pivoting_f=0.5", "adapter.pivoting_f=0.5: must be a finite number of at least 1"),
        ("adapter.precision=float32", "adapter.precision='float32': must be float64 with pivoting=strong"),
        ("adapter.main.init=rrqr_minor_value", "(did you mean rrqr_minor_values?)"),
        ("factor_cache_gib=-1", "factor_cache_gib=-1.0: must be a finite number of at least 0"),
    ],
)
def test_bad_values_are_refused_by_key(make_config, override, message):
    with pytest.raises(ConfigError) as caught:
        make_config("adapter=recyclelora_strong", override)
    assert message in str(caught.value)
