"""From a configuration to decoders, and how their parameters learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file

from recyclelora.adapters.config import LowRankConfig
from recyclelora.adapters.state import low_rank_layers
from recyclelora.config.build import (
    build_backbone,
    build_decoder,
    build_model,
    check_shapes,
    decoder_rules,
    locate_weights,
)
from recyclelora.config.compose import ConfigError, load_config
from recyclelora.system.errors import UserError
from recyclelora.training.optimizer import parameter_groups

FIRST_RELEASE = Path(__file__).parents[1] / "first_release/configs"
DECODERS = {
    "linear": "LinearDecoder", "segformer": "Segformer", "fpn": "FeaturePyramid", "upernet": "UperNet", "dpt": "Dpt",
    "query_tokens": "QueryTokens", "eomt": "Eomt", "mask2former": "Mask2Former",
}  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_is_built_with_a_rule_for_every_parameter(name, make_config):
    config = make_config(*TINY, f"decoder={name}", "decoder.lr_mult=0.5", "backbone.model_args.depth=5")
    with torch.device("meta"):
        decoder = build_decoder(config.decoder, [64] * 4, 19, backbone=build_backbone(config, None))
    assert type(decoder).__name__ == DECODERS[name]
    named = [(f"decoder.{n}", p) for n, p in decoder.named_parameters()]
    groups = parameter_groups(named, decoder_rules(decoder, 0.5), lr=1e-3, weight_decay=0.05)
    assert {g["name"]: (g["lr"], g["weight_decay"]) for g in groups} == {
        "decoder": (5e-4, 0.05),
        "decoder.undecayed": (5e-4, 0.0),
    }
    assert {n for g in groups if not g["weight_decay"] for n in g["names"]} == {
        f"decoder.{n}" for n in decoder.undecayed()
    }


def test_options_reach_the_decoder(make_config):
    config = make_config(*TINY, "decoder=mask2former", "decoder.num_queries=30", "decoder.loss.num_points=99",
                         "decoder.pyramid=learned", "decoder.decoder_layers=2")  # fmt: skip
    decoder = build_decoder(config.decoder, [32] * 4, 19)
    assert decoder.transformer.queries_embedder.weight.shape == (30, 256)
    assert decoder.loss.options.num_points == 99 and len(decoder.transformer.decoder.layers) == 2
    assert any("pyramid" in n for n, _ in decoder.named_parameters())


def test_lent_queries(make_config):
    config = make_config(*TINY, "decoder=mask2former").decoder
    borrowing = build_decoder(config, [32] * 4, 19, torch.zeros(100, 256))
    assert not [n for n, _ in borrowing.named_parameters() if "queries_embedder" in n]
    with pytest.raises(ValueError, match=r"100 queries of width 64.*\(100, 256\)"):
        build_decoder(config, [32] * 4, 19, torch.zeros(100, 64))
    with pytest.raises(ValueError, match="linear has no queries"):
        build_decoder(make_config(*TINY).decoder, [32] * 4, 19, torch.zeros(100, 256))


def test_reins_link_makes_position_and_first_features_of_the_queries(make_config):
    """The published configuration sets both; runs of the first release keep their table."""
    small = [o for o in TINY if not o.startswith(("adapter.", "decoder"))]
    config = make_config(*small, "adapter=rein", "decoder=mask2former", "backbone.pretrained=false")
    new, rules = (model := build_model(config, None)).segmenter.decoder.transformer, model.rules
    assert not hasattr(new, "queries_embedder") and not hasattr(new, "queries_features")
    assert tuple(new.queries_to_features.weight.shape) == (256, 256)
    assert rules["decoder.transformer.queries_to_features.weight"].weight_decay is None  # decays, as there
    config.adapter.link_features = load_config(FIRST_RELEASE / "rein.yaml").adapter.link_features
    old = build_model(config, None).segmenter.decoder.transformer
    assert old.queries_to_features is None and tuple(old.queries_features.weight.shape) == (100, 256)


def test_too_many_classes_for_the_queries_are_the_users_mistake(make_config):
    options = [o for o in TINY if not o.startswith("adapter.")]
    with pytest.raises(ConfigError, match=r"decoder\.num_queries=10: must not be below the 19 classes"):
        make_config(*options, "adapter=frozen", "decoder=query_tokens", "decoder.num_queries=10")
    config = make_config(*options, "adapter=frozen", "decoder=query_tokens")
    config.decoder.num_queries = 10
    with pytest.raises(UserError, match="num_queries=10"):
        build_model(config, None)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["adapter.main.rank=40"], "main.rank=40"),
        (["adapter.targets=[attn_qkv]"], "'attn_qkv' matches no linear layer"),
        (["adapter.blocks='9:'"], "blocks: '9:' is empty"),
        (["backbone.levels=[1,2,3,99]"], "levels"),
        (["decoder=eomt"], r"decoder\.num_blocks=4: must lie between 1 and 3"),
        (["backbone.model_args.num_heads=7"], "timm cannot build"),
        (["+backbone.model_args.act_layer=os.system"], "timm cannot build"),
    ],
)
def test_what_no_weights_could_make_right_is_refused_without_any(overrides, words, make_config):
    with pytest.raises(UserError, match=words):
        check_shapes(make_config(*TINY, *overrides))


@pytest.mark.parametrize("adapter", ["recyclelora", "dora", "vera", "adalora", "rein", "frozen", "full"])
def test_checking_shapes_needs_no_memory_and_accepts_what_fits(adapter, make_config):
    check_shapes(make_config("backbone=dinov2_large", f"adapter={adapter}"))


@pytest.mark.parametrize(
    ("precision", "form", "subtracts"),
    [("bf16-mixed", "subtract", True), ("bf16-mixed", "fold", False), ("32-true", "subtract", False)],
)
def test_initial_factors_are_subtracted_where_autocast_would_round_them(precision, form, subtracts, make_config):
    config = make_config(*TINY, f"adapter.mixed_precision={form}")
    model = build_model(config, None, precision=precision).segmenter.backbone.model
    assert {layer.subtracts for _, layer in low_rank_layers(model)} == {subtracts}
    assert make_config(*TINY).adapter.mixed_precision == "subtract"  # of new runs; those of the first release fold
    assert LowRankConfig().mixed_precision == "fold"


def test_processes_that_share_a_model_read_its_weights_from_the_file_itself(make_config, tmp_path):
    options = ["backbone=vit_tiny_test", "adapter=lora", "trainer.devices=2", "data.augment.crop=[64,64]"]
    state = build_backbone(make_config(*options), None).model.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    options += ["backbone.pretrained=true", f"backbone.checkpoint={tmp_path / 'weights.safetensors'}"]
    for strategy in ("ddp", "fsdp"):
        config = make_config(*options, f"trainer.strategy={strategy}")
        model = build_model(config, locate_weights(config.backbone)).segmenter.backbone.model
        maps = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in maps if "weights.safetensors" in line]
        mapped = [range(int(start, 16), int(end, 16)) for start, end in spans]
        frozen = [parameter for parameter in model.blocks.parameters() if not parameter.requires_grad]
        assert [any(p.data_ptr() in span for span in mapped) for p in frozen] == [strategy == "fsdp"] * len(frozen)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
