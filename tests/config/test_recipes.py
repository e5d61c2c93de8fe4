"""Every published preset against its authors' public configuration.

The expected values were read from those files (commits d094a7b1 of RecycleLoRA, 7ea8c0e of SoMA, 7da85bc of Rein) and
from the rules of the libraries that run them: mmengine 0.10 (PolyLR, LinearLR, CosineAnnealingParamScheduler, EMAHook),
mmsegmentation 1.2. docs/reproduce.md has the same values as a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from recyclelora.config.build import build_decoder, decoder_rules
from recyclelora.config.run import Config
from recyclelora.system.checks import identity_fields
from recyclelora.training.schedule import build_schedule

MakeConfig = Callable[..., Config]

STEPS = 40_000
WHOLE_GTA = [("gta", "train", None)]
PART_OF_GTA = [("gta", "train", 12403)]
CITY = [("cityscapes", "train", None)]
SYNTHIA, URBANSYN = [("synthia", "train", None)], [("urbansyn", "train", None)]

RECIPES = {
    # sources, padding, batch, EMA momentum and first step, weight decay at the end, warm-up, decay of query_feat
    "gta2cbm": (PART_OF_GTA, "first", 4, None, 0, 1e-5, 0, True),
    "city2bm": (CITY, "first", 4, None, 0, 1e-5, 0, True),
    "gs2cbm": ([*PART_OF_GTA, *SYNTHIA], "last", 4, None, 0, 1e-5, 0, True),
    "gsu2cbm": ([*PART_OF_GTA, *SYNTHIA, *URBANSYN], "last", 4, None, 0, 1e-5, 0, True),
    "soma_gta2cbm": (WHOLE_GTA, "last", 4, 2e-4, 12_000, 1e-5, 0, False),
    "soma_gs2cbm": ([*WHOLE_GTA, *SYNTHIA], "last", 4, None, 0, 1e-5, 0, False),
    "soma_gsu2cbm": ([*WHOLE_GTA, *SYNTHIA, *URBANSYN], "last", 4, None, 0, 1e-5, 0, False),
    "soma_gsu2cbm_1024": ([*WHOLE_GTA, *SYNTHIA, *URBANSYN], "last", 4, 2e-4, 16_000, 1e-5, 0, False),
    "soma_city2bm": (CITY, "last", 8, 2e-4, 20_000, 1e-5, 1500, False),
    "soma_city2acdc": (CITY, "last", 8, 2e-4, 20_000, 1e-5, 10_000, False),
    "soma_city2acdc_512": (CITY, "last", 8, 2e-4, 20_000, 1e-5, 10_000, False),
    "rein_gta2cbm": (WHOLE_GTA, "last", 4, None, 0, None, 0, True),
    "rein_city2bm": (CITY, "last", 4, None, 0, None, 0, True),
    "rein_city2acdc": (CITY, "last", 8, None, 0, None, 10_000, True),
    "rein_city2acdc_512": (CITY, "last", 4, None, 0, None, 0, True),
    "rein_frozen_gta2cbm": (WHOLE_GTA, "last", 4, None, 0, None, 0, False),
    "rein_full_gta2cbm": (WHOLE_GTA, "last", 4, None, 0, None, 0, False),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_preset_is_what_its_public_configuration_says(make_config: MakeConfig, name: str):
    c = make_config(f"experiment={name}")
    sources, padding, batch, ema, ema_start, decay_end, warmup, query_feat_decays = RECIPES[name]
    assert [(s.dataset, s.split, s.subset) for s in c.data.sources] == sources
    assert (c.data.augment.padding, c.trainer.batch_size, c.trainer.max_steps) == (padding, batch, STEPS)
    assert (c.trainer.ema, c.trainer.ema_start) == (ema, ema_start)
    lr = 6e-5 if name == "rein_city2acdc" else 1e-4
    assert (c.optimizer.lr, c.optimizer.weight_decay, c.optimizer.weight_decay_end) == (lr, 0.05, decay_end)
    assert (c.optimizer.warmup_steps, c.decoder.decay_query_feat) == (warmup, query_feat_decays)
    adapter = next((a for a in ("frozen", "full", "rein", "soma") if a in name), "recyclelora")
    assert (c.adapter.name, c.backbone.name, c.decoder.name) == (adapter, "dinov2_large", "mask2former")


SMALL, LARGE = (512, [int(512 * x * 0.1) for x in range(5, 21)]), (1024, [int(1024 * x * 0.1) for x in range(5, 21)])
"""Crop and short edges, as the configurations compute them."""
OWN = {"mapillary": [1024, 2048]}
SIZES = {
    # crop and short edges of training; window, stride, sizes and fits (short edge first) of tests
    **dict.fromkeys(
        ("gta2cbm", "city2bm", "gs2cbm", "gsu2cbm", "soma_gta2cbm", "soma_gs2cbm", "soma_gsu2cbm", "soma_city2bm"),
        (*SMALL, 512, 341, None, OWN),
    ),
    "soma_gsu2cbm_1024": (*LARGE, 1024, 683, None, {"bdd100k": [1024, 2048], **OWN}),
    **dict.fromkeys(("soma_city2acdc", "rein_city2acdc", "city2acdc"), (*LARGE, 1024, 683, None, None)),
    "soma_city2acdc_512": (512, LARGE[1], 512, 341, None, None),
    **dict.fromkeys(
        ("rein_gta2cbm", "rein_city2bm", "rein_frozen_gta2cbm", "rein_full_gta2cbm"),
        (*SMALL, 512, 341, [512, 1024], {"mapillary": [512, 1024]}),
    ),
    "rein_city2acdc_512": (*SMALL, 512, 341, [512, 1024], None),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_of_training_and_tests(make_config: MakeConfig, name: str):
    data = make_config(f"experiment={name}").data
    crop, short_edges, window, stride, cityscapes, fit = SIZES[name]
    assert (data.augment.crop, data.augment.short_edges) == ([crop, crop], short_edges)
    assert data.augment.max_long_edge == 2 * short_edges[-1]
    assert (data.protocol.mode, data.protocol.window, data.protocol.stride) == ("slide", window, stride)
    shown = {target.dataset for target in data.targets} | {data.source_val.dataset}
    assert data.protocol.sizes.get("cityscapes") == cityscapes
    assert data.protocol.sizes.get("acdc") == ([540, 960] if name == "rein_city2acdc_512" else None)
    assert {k: v for k, v in data.protocol.fit.items() if k in shown} == (fit or {})
    assert ("mapillary" in shown) <= ("mapillary" in data.protocol.half)


def poly(length: int, power: float = 0.9) -> list[float]:
    """PolyLR to 0 as mmengine computes it, each value from the one before, over ``length`` steps."""
    total, values = length - 1, [1.0]
    for last in range(1, length):
        values.append(values[-1] * (1 - 1 / (total - last + 1)) ** power)
    return values


def linear(length: int, start: float) -> list[float]:
    """LinearLR from ``start`` to 1 as mmengine computes it."""
    total, values = length - 1, [start]
    for last in range(1, length):
        values.append(values[-1] * (1 + (1 - start) / (total * start + (last - 1) * (1 - start))))
    return values


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("gta2cbm", poly(STEPS)),
        ("rein_gta2cbm", poly(STEPS)),
        ("soma_city2bm", linear(1500, 0.01) + poly(STEPS - 1500)),
        ("city2acdc", linear(10_000, 1e-6) + poly(STEPS - 10_000)),
        ("soma_city2acdc", linear(10_000, 1e-6) + poly(STEPS - 10_000)),
        ("rein_city2acdc", linear(10_000, 1e-6) + poly(STEPS - 10_000)),
        ("rein_city2acdc_512", poly(STEPS)),
    ],
)
def test_the_learning_rate_of_every_step_is_mmengines(make_config: MakeConfig, name: str, factors: list[float]):
    schedule = build_schedule(make_config(f"experiment={name}"))
    assert len(factors) == STEPS
    assert [schedule.lr_factor(step) for step in range(STEPS)] == pytest.approx(factors, rel=1e-7, abs=1e-12)


def test_learning_rates_by_hand(make_config: MakeConfig):
    published = build_schedule(make_config("experiment=gta2cbm"))
    assert published.lr_factor(0) == 1.0
    assert published.lr_factor(1) == pytest.approx((1 - 1 / 39_999) ** 0.9, rel=1e-12)
    assert published.lr_factor(39_998) == pytest.approx((1 / 39_999) ** 0.9, rel=1e-9)
    assert published.lr_factor(39_999) == 0.0
    warmed = build_schedule(make_config("experiment=soma_city2bm"))
    assert [warmed.lr_factor(step) for step in (0, 1499, 1500, 39_999)] == pytest.approx([0.01, 1.0, 1.0, 0.0])
    assert warmed.lr_factor(1) == pytest.approx(0.01 + 0.99 / 1499)


def test_the_weight_decay_of_every_step(make_config: MakeConfig):
    """CosineAnnealingParamScheduler counts T_max = 40,000; Rein's runs have none."""
    annealed = build_schedule(make_config("experiment=soma_gta2cbm"))
    for step in (0, 1, 12_345, 39_999):
        by_hand = 1e-5 + (0.05 - 1e-5) * (1 + math.cos(math.pi * step / 40_000)) / 2
        assert annealed.weight_decay(0.05, step) == pytest.approx(by_hand, rel=1e-12)
    constant = build_schedule(make_config("experiment=rein_gta2cbm"))
    assert {constant.weight_decay(0.05, step) for step in (0, 20_000, 39_999)} == {0.05}


def test_a_schedule_of_the_first_release_keeps_its_count(make_config: MakeConfig):
    schedule = build_schedule(make_config("optimizer.reach_ends=false", "optimizer.warmup_steps=10"))
    assert schedule.lr_factor(9) == pytest.approx(1e-6 + (1 - 1e-6) * 0.9)
    assert schedule.lr_factor(39_999) == pytest.approx((1 / 39_990) ** 0.9)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_runs_still_learn(make_config: MakeConfig, steps: int):
    schedule = build_schedule(make_config(f"trainer.max_steps={steps}"))
    assert schedule.lr_factor(0) == 1.0


@pytest.mark.parametrize(("name", "spared"), [("soma_gta2cbm", True), ("gta2cbm", False)])
def test_which_embeddings_of_the_decoder_decay(make_config: MakeConfig, name: str, spared: bool):
    """SoMA names query_embed, level_embed and query_feat; RecycleLoRA's list lacks the last."""
    config = make_config(f"experiment={name}")
    with torch.device("meta"):
        decoder = build_decoder(config.decoder, [1024] * 4, 19)
    rules = decoder_rules(decoder, config.decoder.lr_mult)
    free = {name for name, rule in rules.items() if rule.weight_decay == 0.0}
    assert {"decoder.transformer.queries_embedder.weight", "decoder.transformer.level_embed.weight"} <= free
    assert ("decoder.transformer.queries_features.weight" in free) == spared
    assert "decoder.pixel_decoder.level_embed" not in free


@pytest.mark.parametrize("name", ["demo", "study"])
def test_what_is_no_published_recipe_is_the_run_that_it_was(make_config: MakeConfig, name: str):
    """Options younger than the first release stand at what that release did, so that its runs are still found."""
    identity = identity_fields(make_config(f"experiment={name}"))
    assert not {"ema_start"} & identity["trainer"].keys() and "reach_ends" not in identity["optimizer"]
    assert not {"padding", "hue_half_open"} & identity["data"]["augment"].keys()


@pytest.mark.parametrize("name", ["eva02_large", "clip_large"])
def test_both_normalisations_of_a_backbone_are_offered(make_config: MakeConfig, name: str):
    own, rein = (make_config(f"backbone={n}").backbone for n in (name, f"{name}_imagenet"))
    assert [round(255 * v, 3) for v in rein.mean] == [123.675, 116.28, 103.53]  # as Rein's data_preprocessor has them
    assert [round(255 * v, 3) for v in rein.std] == [58.395, 57.12, 57.375]
    assert (own.hub, own.model, own.patch_size) == (rein.hub, rein.model, rein.patch_size) and own.mean != rein.mean
