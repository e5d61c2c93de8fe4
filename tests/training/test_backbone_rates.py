"""Learning rates of the backbone's own: by layer, and after the decoder's warm-up."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY

from recyclelora.config.build import build_model
from recyclelora.config.compose import ConfigError
from recyclelora.system.parameter_rule import ParameterRule, decayed_by_layer
from recyclelora.training.optimizer import adamw, parameter_groups
from recyclelora.training.schedule import build_schedule

FULL = [option for option in TINY if not option.startswith("adapter.")] + ["adapter=full_llrd"]
SHORT = ["optimizer.warmup_steps=10", "optimizer.backbone_delay=10", "optimizer.backbone_warmup=20"]


def optimizer_of(config):
    model, o = build_model(config, None), config.optimizer
    named = model.segmenter.named_parameters()
    groups = parameter_groups(named, model.rules, lr=o.lr, weight_decay=o.weight_decay)
    return adamw(groups, betas=(0.9, 0.999), eps=1e-8)


def test_the_preset_is_eomts_full_fine_tuning(make_config):
    config = make_config(*FULL, "trainer.max_steps=40000")
    o = config.optimizer
    assert (config.adapter.kind, config.adapter.lr_mult, o.lr, o.weight_decay) == ("full", 1.0, 1e-4, 0.05)
    assert (o.layer_decay, o.warmup_steps, o.backbone_delay, o.backbone_warmup) == (0.8, 500, 500, 1000)
    rates = {name: group["lr"] for group in optimizer_of(config).param_groups for name in group["names"]}
    assert rates.keys() == {name for name, p in build_model(config, None).segmenter.named_parameters()}
    for block in range(4):
        assert rates[f"backbone.model.blocks.{block}.mlp.fc1.weight"] == pytest.approx(1e-4 * 0.8 ** (3 - block))
        assert rates[f"backbone.model.blocks.{block}.norm1.bias"] == pytest.approx(1e-4 * 0.8 ** (3 - block))
    for embedding in ("patch_embed.proj.weight", "cls_token", "pos_embed"):
        assert rates[f"backbone.model.{embedding}"] == pytest.approx(1e-4 * 0.8**3)
    assert rates["decoder.classifier.weight"] == 1e-4


def test_the_backbone_rests_while_the_decoder_warms_up(make_config):
    config = make_config(
        *FULL, *SHORT, "optimizer.reach_ends=false", "trainer.max_steps=130", "optimizer.layer_decay=1"
    )
    optimizer, schedule, found = optimizer_of(config), build_schedule(config), {}
    for step in (0, 5, 9, 10, 20, 29, 30, 80, 129):
        schedule.apply(optimizer, step)
        found[step] = {group["name"].split(".")[0]: group["lr"] / 1e-4 for group in optimizer.param_groups}
    decoder = {5: 0.5, 9: 0.9, 10: 1.0, 80: (1 - 70 / 120) ** 0.9, 129: (1 - 119 / 120) ** 0.9}
    backbone = {0: 0, 5: 0, 9: 0, 20: 0.5, 29: 0.95, 30: 1.0, 80: 0.5**0.9, 129: 0.01**0.9}
    assert {step: found[step]["decoder"] for step in decoder} == pytest.approx(decoder, abs=1e-5)
    assert {step: found[step]["adapter"] for step in backbone} == pytest.approx(backbone, abs=1e-5)


def test_without_its_own_keys_the_backbone_follows_the_schedule_of_all(make_config):
    plain = build_schedule(make_config(*TINY, "optimizer.warmup_steps=2"))
    assert plain.backbone is None
    late = build_schedule(make_config(*TINY, "optimizer.warmup_steps=2", "optimizer.backbone_delay=1")).backbone
    assert [late.lr_factor(step + 1) for step in range(2)] == [plain.lr_factor(step) for step in range(2)]


def test_any_adapter_can_learn_by_layer_and_keeps_its_groups_apart(make_config):
    config = make_config(*TINY, "optimizer.layer_decay=0.5")
    groups = {group["name"]: group for group in optimizer_of(config).param_groups}
    assert groups["adapter.sub.lora_a.block03"]["lr"] == 2 * groups["adapter.sub.lora_a.block02"]["lr"] == 0.5e-4
    assert sum(name.startswith("adapter.") for name in groups) == 4 * 4


def test_what_an_adapter_adds_for_all_blocks_keeps_its_rate():
    rule = ParameterRule(2.0, None, "all")
    names = ("cls_token", "vpt.table", "blocks.1.attn.proj.weight", "blocks.2.adaptformer.up.weight")
    names += ("norm.weight",)  # behind all blocks
    rules = decayed_by_layer(dict.fromkeys(names, rule), 0.5, 3, {"cls_token", "blocks.1.attn.proj.weight", names[-1]})
    assert [rules[name].lr_mult for name in names] == [0.5, 2.0, 1.0, 2.0, 2.0]
    assert decayed_by_layer({"cls_token": rule}, 1.0, 3, {"cls_token"}) == {"cls_token": rule}


@pytest.mark.parametrize("option", ["layer_decay=0", "layer_decay=1.1", "backbone_delay=4", "backbone_warmup=-1"])
def test_rates_that_could_not_be_meant_are_refused(make_config, option):
    with pytest.raises(ConfigError, match=rf"optimizer\.{option.split('=')[0]}"):
        make_config(*TINY, f"optimizer.{option}")


def test_nothing_of_a_resting_backbone_moves(make_config):
    config = make_config(*FULL, *SHORT, "trainer.max_steps=130")
    model = build_model(config, None)
    groups = parameter_groups(model.segmenter.named_parameters(), model.rules, lr=1e-4, weight_decay=0.05)
    optimizer = adamw(groups, betas=(0.9, 0.999), eps=1e-8)
    before = {name: p.detach().clone() for name, p in model.segmenter.named_parameters()}
    for parameter in model.segmenter.parameters():
        parameter.grad = torch.ones_like(parameter)
    build_schedule(config).apply(optimizer, 9)
    optimizer.step()
    moved = {name for name, p in model.segmenter.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)
