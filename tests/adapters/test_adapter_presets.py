"""The shipped files of the group ``adapter``: published sizes on DINOv2-L, and overrides that are checked by key."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import compose_config
from low_rank import count_trainable
from timm.models.eva import Eva
from torch import nn

from recyclelora.adapters.blocks import parse_blocks
from recyclelora.adapters.low_rank.inject import LowRank
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.selection import select_linears
from recyclelora.config.build import build_backbone
from recyclelora.config.compose import ConfigError, home

BLOCK = {"attn.qkv": (1024, 3072), "attn.proj": (1024, 1024), "mlp.fc1": (1024, 4096), "mlp.fc2": (4096, 1024)}
PAIRS = 24 * sum(inputs + outputs for inputs, outputs in BLOCK.values())
OUTPUTS = 24 * sum(outputs for _, outputs in BLOCK.values())
TRAINABLE = {
    "frozen": 0,
    "lora": 786_432,  # published as 0.79M
    "lora_equal": 14_155_776,  # as recyclelora
    "rslora": 786_432,
    "lora_plus": 786_432,
    "pissa": 16 * PAIRS,
    "milora": 16 * PAIRS,
    "olora": 16 * PAIRS,
    "orthogonal": 16 * PAIRS,
    "lora_null": 16 * PAIRS,
    "lora_null_v2": 16 * OUTPUTS,
    "corda": 16 * PAIRS,
    "corda_ipm": 16 * PAIRS,
    "lora_ga": 16 * PAIRS,
    "lora_one": 16 * PAIRS,
    "recyclelora_data": 14_155_776,
    "recyclelora_null": 14_155_776,
    "soma": 4_866_048,
    "dora": 16 * PAIRS + OUTPUTS,
    "lora_xs": 24_576,
    "svft": 98_304,
    "oplora": 16 * PAIRS,
    "kasa": 16 * PAIRS + 16 * 96,
    "delora": 16 * PAIRS + 96,
    "hira": 16 * PAIRS,
    "vera": 24 * (256 + 3072),
    "adalora": 24 * PAIRS + 24 * 96,
    "rein": 2_530_817,
    "set": 7_087_617,
    "causal_tune": 2_530_817,
    "adaptformer": 3_171_840,  # published as 3.17M
    "vpt": 3_686_400,  # published as 3.69M
    "norms": 24 * (9_216 + 4 * 1_024),
    "recyclelora": 14_155_776,
    "recyclelora_short": 14_155_776,
    "recyclelora_main": 12_582_912,
    "recyclelora_sub": 1_572_864,
}


@functools.cache
def composed(*overrides: str) -> Any:
    """The adapter's configuration; nothing is read from or written to a folder."""
    return compose_config(Path("nowhere"), *overrides).adapter


def dinov2_large() -> nn.Module:
    with torch.device("meta"):
        return timm.create_model("vit_large_patch14_dinov2", pretrained=False)


def trainable(adapter, has_queries: bool = False) -> int:
    method, model = adapter.method(), dinov2_large()
    if isinstance(method, LowRank):
        return count_trainable(model, adapter)
    method.apply(model, AdapterContext(max_steps=40_000, has_queries=has_queries))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", TRAINABLE)
def test_trainable_parameters_on_dinov2_large(name):
    adapter = composed(f"adapter={name}")
    assert adapter.name == name
    assert trainable(adapter) == TRAINABLE[name]


def test_the_query_link_and_full_fine_tuning_on_dinov2_large():
    assert trainable(composed("adapter=rein"), has_queries=True) == 2_990_081
    full = composed("adapter=full")
    assert trainable(full) == sum(p.numel() for p in dinov2_large().parameters())


SHIPPED = {
    group: sorted(path.stem for path in (home() / f"conf/{group}").glob("*.yaml")) for group in ("adapter", "backbone")
}
KINDS = ("dinov2_base", "dinov2_giant", "dinov3_base", "dinov3_small_plus", "eva02_base", "clip_base", "siglip_large")
KINDS += ("sam_base", "radio_v3_base", "pe_core_base", "tipsv2_base", "vit_tiny_test")
BACKBONES = [
    pytest.param(name, marks=[] if name in KINDS else pytest.mark.slow, id=name) for name in SHIPPED["backbone"]
]
"""One of each kind of architecture; the others differ from these in width and depth only."""
EVERYWHERE = ("recyclelora", "soma", "rein", "vpt", "adaptformer", "norms")
"""One adapter of each way of choosing its places; all are tried with q, k, v fused and with q, k, v apart."""
STRONG = "adapter=recyclelora_strong"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_adapter_fits_every_backbone(backbone):
    """By the role of a layer, not by its name: EVA02 has q, k and v apart, and gate and value of its MLP."""
    config = compose_config(Path("nowhere"), f"backbone={backbone}")
    with torch.device("meta"):
        model = build_backbone(config, None).model
    for name in SHIPPED["adapter"] if backbone in ("dinov2_base", "eva02_base") else EVERYWHERE:
        if backbone == "vit_tiny_test" and name.startswith(("soma", "lora_equal")):
            continue  # adapts blocks 8 to 23, or with rank 36; this has four of width 32
        if backbone.startswith("sam_") and name == "vpt":
            continue  # its tokens are a map, which has no place for prompts
        method = composed(f"adapter={name}").method()
        assert not hasattr(method, "check") or method.check(model)


def test_the_layers_of_a_role_are_those_that_do_its_work():
    with torch.device("meta"):
        eva, dino = timm.create_model("eva02_large_patch14_224", depth=2), timm.create_model("vit_small_patch14_dinov2")
    names = [f"blocks.1.attn.{part}_proj" for part in "qkv"]
    assert select_linears(eva, ["*.attn.qkv"], "1") == names
    assert select_linears(eva, ["*.attn.k_proj"], "1") == names[1:2]
    assert select_linears(eva, ["blocks.1.mlp.fc1"]) == ["blocks.1.mlp.fc1_g", "blocks.1.mlp.fc1_x"]
    assert select_linears(dino, ["*.attn.qkv"], "1") == ["blocks.1.attn.qkv"]
    with pytest.raises(ValueError, match="matches no linear layer"):
        select_linears(dino, ["*.q_proj"])


@pytest.mark.parametrize("adapter", ["lora", "soma"])
def test_separate_query_key_and_value_start_as_they_were_and_train(adapter):
    torch.manual_seed(0)
    options = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "use_rot_pos_emb": True, "mlp_ratio": 8 / 3}
    model = Eva(img_size=32, patch_size=16, embed_dim=64, depth=9, num_heads=4, num_classes=0, **options).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model.forward_features(images)
    composed(f"adapter={adapter}", "adapter.main.rank=4").method().apply(model, AdapterContext())
    torch.testing.assert_close(model.forward_features(images), expected, atol=2e-5, rtol=0)
    model.forward_features(images).exp().mean().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert all(f"blocks.8.attn.{part}_proj.main.lora_b" in trained for part in "qkv")
    assert any("mlp" in name for name in trained) == (adapter == "soma")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([STRONG, "adapter.sub.init=rrqr_minor"], "adapter.pivoting='strong': .*rrqr_minor"),
        (
            [STRONG, "adapter.sub.init=rrqr_minor_values"],
            "adapter.pivoting='strong': .*rrqr_minor",
        ),
        (["adapter=recyclelora", "adapter.blocks='::0'"], "adapter.blocks='::0': .*'::0' in '::0' has a step of zero"),
        (["adapter=rein", "adapter.blocks=first"], "adapter.blocks='first': .*'first' in 'first' is neither a number"),
        (
            ["adapter=adalora", "adapter.t_init=90", "trainer.max_steps=100"],
            "adapter.t_init=90: .* and t_final=50",
        ),
        (["adapter=rein", "adapter.link=true", "decoder=linear"], "adapter.link=True: .* decoder=mask2former"),
        (["adapter=rein", "adapter.num_tokens=50"], "adapter.num_tokens=50: lends 50 queries of width 256"),
        (["adapter=rein", "adapter.query_width=128"], "adapter.query_width=128: lends 100 queries of width 128"),
        (["backbone.levels=[3,2,1,0]"], "backbone.levels=.*ascending"),
        (["decoder.num_queries=10"], "decoder.num_queries=10: must not be below the 19 classes"),
    ],
)
def test_what_building_would_refuse_by_values_is_refused_at_once(overrides, words):
    with pytest.raises(ConfigError, match=words):
        composed(*overrides)


@pytest.mark.parametrize("blocks", ["-1", "::2", "0, 3", "8:,0", "-4:-1", "1:10:3", ":"])
def test_every_text_that_the_parser_takes_is_a_valid_option(blocks):
    assert composed("adapter=lora", f"adapter.blocks='{blocks}'").blocks == blocks
    assert parse_blocks(blocks, 12)


@pytest.mark.parametrize("adapter", ["recyclelora_strong", "adalora", "rein"])
@pytest.mark.parametrize("rank", [1, 4])
def test_what_is_accepted_is_built(adapter, rank):
    options = ["adapter.sub.rank=1", f"adapter.main.rank={rank}"] if adapter.startswith("recycle") else []
    composed(f"adapter={adapter}", *options).method()


@pytest.mark.parametrize("path", sorted((home() / "conf/adapter").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_what_it_is(path):
    assert path.read_text().startswith("# ")
    assert f"name: {path.stem}\n" in path.read_text()


def test_presets_differ_in_what_their_papers_change():
    def spec(name: str):
        return composed(f"adapter={name}")

    lora = spec("lora")
    assert lora.layer_scale == 1.0 and lora.targets == ["*.attn.qkv"] and not lora.residual
    assert spec("rslora").layer_scale == 8 / 8**0.5
    assert spec("lora_plus").main.lr_mult_b == 16.0
    soma = spec("soma").main
    assert (soma.lr_mult, soma.weight_decay, soma.init) == (0.5, 0.05, "svd_minor")
    inits = {name: spec(name).main.init for name in ("pissa", "milora", "olora", "orthogonal")}
    assert inits == {"pissa": "svd_major", "milora": "svd_minor", "olora": "qr", "orthogonal": "orthogonal"}
    assert {spec(name).layer_scale for name in inits} == {1.0}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("rein", "num_tokens=50", "link=false"), 24 * (50 * 16 + 16 * 1024) + 2 * (1024 * 1024 + 1024) + 1),
        (("dora", "rank=8"), 8 * PAIRS + OUTPUTS),
        (("vera", "targets=['*']", "rank=8"), 96 * 8 + OUTPUTS),
        (("adalora", "init_rank=3", "target_rank=2", "blocks='8:'"), 16 * (3 * PAIRS // 24 + 3 * 4)),
        (("pissa", "main.rank=4"), 4 * PAIRS),
    ],
)
def test_overrides_reach_the_method(overrides, expected):
    name, *keys = overrides
    assert trainable(composed(f"adapter={name}", *(f"adapter.{key}" for key in keys))) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dora", "rank=0"), r"adapter.rank=0: must be a finite number of at least 1"),
        (("dora", "alpha=-1"), r"adapter.alpha=-1.0: must be a finite number above 0"),
        (("dora", "targets=[]"), r"adapter.targets=\[\]: must hold at least one pattern"),
        (("vera", "d_initial=0"), r"adapter.d_initial=0.0"),
        (("vera", "projection_seed=-1"), r"adapter.projection_seed=-1"),
        (("adalora", "target_rank=25"), r"adapter.target_rank=25: must lie between 1 and init_rank, 24"),
        (("adalora", "beta2=1"), r"adapter.beta2=1.0: must lie in \(0, 1\)"),
        (("adalora", "delta_t=0"), r"adapter.delta_t=0"),
        (("adalora", "lr_mult=0"), r"adapter.lr_mult=0.0"),
        (("rein", "num_tokens=1"), r"adapter.num_tokens=1: must be a finite number of at least 2"),
        (("rein", "blocks=some"), r"adapter.blocks='some': must be a range"),
        (("rein", "weight_decay=-1"), r"adapter.weight_decay=-1.0"),
    ],
)
def test_bad_values_are_refused_by_key(overrides, message):
    name, *keys = overrides
    with pytest.raises(ConfigError, match=message):
        composed(f"adapter={name}", *(f"adapter.{key}" for key in keys))
