from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
import yaml
from torch import nn

from recyclelora.models.backbones.timm import TimmBackbone, create_backbone, default_levels

FOLDER = Path(__file__).parents[3] / "conf" / "backbone"
OPTIONS = {
    path.stem: option
    for path in FOLDER.glob("*.yaml")
    if "defaults" not in (option := yaml.safe_load(path.read_text()))  # others are one of these with other values
}
KEYS = ["name", "model", "hub", "patch_size", "pretrained", "checkpoint", "levels", "resampling"]
KEYS += ["positions", "mean", "std"]
SHRUNK = {"embed_dim": 32, "depth": 4, "num_heads": 2}
NAMES = sorted(OPTIONS)
# One option per kind of architecture; the others differ from these in width and depth only.
KINDS = ["dinov2_small", "dinov2_small_reg", "dinov2_giant", "dinov3_base", "eva02_large"]
KINDS += ["clip_large", "siglip_large", "sam_base", "vit_tiny_test"]
KINDS += ["dinov3_small_plus", "radio_v3_base", "pe_core_base", "tipsv2_base"]


def build(name: str, size: tuple[int, int] = (64, 64), **options) -> TimmBackbone:
    option = OPTIONS[name]
    arguments = {
        "patch_size": option["patch_size"],
        "image_size": size,
        "levels": option["levels"],
        "model_args": option["model_args"] | SHRUNK,
        "weights": None,
    }
    return create_backbone(option["model"], **(arguments | options))


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def test_all_options_are_there():
    dinov2 = {f"dinov2_{size}{reg}" for size in ("small", "base", "large", "giant") for reg in ("", "_reg")}
    dinov3 = {f"dinov3_{size}" for size in ("small", "small_plus", "base", "large", "huge_plus", "7b")}
    radio = {"radio_v3_base", "radio_v3_large", "radio_v3_huge", "radio_v4_so400m", "radio_v4_huge"}
    perception = {f"pe_{kind}_{size}" for kind in ("core", "spatial") for size in ("base", "large")}
    others = {"eva02_base", "eva02_large", "clip_base", "clip_large", "siglip_large", "siglip_so400m", "vit_tiny_test"}
    others |= {"sam_base", "sam_large", "sam_huge", "tipsv2_base", "tipsv2_large"}
    assert set(OPTIONS) == dinov2 | dinov3 | radio | perception | others


@pytest.mark.parametrize("name", NAMES)
def test_option_agrees_with_timms_own_table(name):
    from timm.models import get_pretrained_cfg

    option = OPTIONS[name]
    assert list(option) == [*KEYS, "model_args"]
    assert (option["name"], option["resampling"], option["patch_size"]) == (name, "bicubic", 16)
    assert option["positions"] == "pretrained"
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")
    if option["hub"] is None:
        assert option["pretrained"] is False
        return
    table = get_pretrained_cfg(option["hub"].removeprefix("timm/"))
    assert table.hf_hub_id == option["hub"]
    assert table.architecture == option["model"].replace("_quickgelu", "")
    assert (tuple(option["mean"]), tuple(option["std"])) == (table.mean, table.std)


@pytest.mark.parametrize(
    "name", [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_option_at_full_size_gives_four_levels(name):
    with torch.device("meta"):
        backbone = build(name, (512, 512), model_args=OPTIONS[name]["model_args"])
        features = backbone(torch.empty(2, 3, 256, 384))
    width = backbone.model.embed_dim
    assert [tuple(level.shape) for level in features] == [(2, width, 16, 24)] * 4
    assert backbone.embed_dim == width
    assert backbone.levels == default_levels(backbone.depth)
    assert backbone.levels[-1] == backbone.depth - 1


@pytest.mark.parametrize("name", KINDS)
def test_features_from_a_file_are_those_of_timms_whole_model(name):
    option = OPTIONS[name]
    torch.manual_seed(1)
    arguments = {"img_size": 64, "patch_size": 16, "num_classes": 0} | option["model_args"] | SHRUNK
    whole = timm.create_model(option["model"], **arguments).eval()
    weights = {key: torch.randn_like(value) * 0.1 for key, value in whole.state_dict().items()}
    whole.load_state_dict(weights)
    backbone = build(name, weights=weights).eval()
    with torch.no_grad():
        features = backbone(images(64, 64))
        expected = whole.forward_intermediates(
            images(64, 64), indices=list(backbone.levels), norm=False, output_fmt="NCHW", intermediates_only=True
        )
    for level, own in zip(features, expected, strict=True):
        torch.testing.assert_close(level, own)
        assert level.abs().max() > 0


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_gets_a_gradient(name):
    backbone = build(name)
    sum(level.square().mean() for level in backbone(images(64, 96))).backward()
    without = [key for key, parameter in backbone.named_parameters() if parameter.grad is None]
    assert without == []
    assert all(block.norm1.weight.grad.abs().sum() > 0 for block in backbone.model.blocks)


@pytest.mark.parametrize("name", KINDS)
def test_autocast_stays_close_to_float32(name):
    backbone = build(name).eval()
    with torch.no_grad():
        exact = backbone(images(64, 96))
        with torch.autocast("cpu", torch.bfloat16):
            rough = backbone(images(64, 96))
    for a, b in zip(exact, rough, strict=True):
        assert (a - b.float()).abs().max() < 0.1 * a.abs().max()


@pytest.mark.parametrize("name", KINDS)
def test_levels_are_the_raw_outputs_of_the_blocks(name):
    backbone = build(name).eval()
    outputs = {}
    for index, block in enumerate(backbone.model.blocks):
        block.register_forward_hook(lambda module, given, output, index=index: outputs.update({index: output}))
    with torch.no_grad():
        features = backbone(images(32, 64))
    for level, feature in zip(backbone.levels, features, strict=True):
        tokens = outputs[level].reshape(2, -1, 32)[:, -8:]  # patch tokens stand behind CLS and registers
        assert torch.equal(feature, tokens.transpose(1, 2).reshape(2, 32, 2, 4))


def test_dinov2_large_is_the_published_model():
    with torch.device("meta"):
        backbone = build("dinov2_large", (512, 512), model_args={})
    blocks = backbone.model.blocks
    linears = [tuple(m.weight.shape) for m in blocks.modules() if isinstance(m, nn.Linear)]
    assert len(blocks) == 24
    assert Counter(linears) == {(3072, 1024): 24, (1024, 1024): 24, (4096, 1024): 24, (1024, 4096): 24}
    stem = 1024 + 1025 * 1024 + (3 * 16 * 16 + 1) * 1024
    block = sum(a * b for a, b in set(linears)) + 3072 + 1024 + 4096 + 1024 + 6 * 1024
    assert sum(p.numel() for p in backbone.parameters()) == stem + 24 * block == 304_196_608
    assert not any("mask_token" in name for name, _ in backbone.named_parameters())


@pytest.mark.parametrize(("depth", "levels"), [(24, (7, 11, 15, 23)), (12, (3, 5, 7, 11)), (40, (9, 19, 29, 39))])
def test_published_levels(depth, levels):
    assert default_levels(depth) == levels


@pytest.mark.parametrize("depth", [4, 5, 16, 32])
def test_other_depths_are_cut_into_quarters(depth):
    assert default_levels(depth) == tuple(depth * k // 4 - 1 for k in (1, 2, 3, 4))


def test_blocks_behind_the_last_level_are_removed():
    backbone = build("dinov2_small", levels=[1, 2, 4, 5], model_args=SHRUNK | {"depth": 8})
    assert (backbone.depth, len(backbone.model.blocks), backbone.levels) == (6, 6, (1, 2, 4, 5))


@pytest.mark.parametrize("levels", [[0, 1, 2], [0, 1, 1, 2], [3, 2, 1, 0], [0, 1, 2, 4], [-1, 1, 2, 3]])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ValueError, match="expected 4 ascending blocks between 0 and 3"):
        build("vit_tiny_test", levels=levels)


def test_too_shallow_a_model_is_refused():
    with pytest.raises(ValueError, match="levels"):
        build("vit_tiny_test", model_args=SHRUNK | {"depth": 3})


def test_sizes_must_be_multiples_of_the_patch():
    with pytest.raises(ValueError, match=r"image size \(64, 70\): sides must be multiples of patch 16"):
        build("vit_tiny_test", (64, 70))
    with pytest.raises(ValueError, match="images of 64x72 pixels: sides must be multiples of patch 16"):
        build("vit_tiny_test")(images(64, 72))


@pytest.mark.parametrize("model", ["no_such_model", "resnet18", "swin_tiny_patch4_window7_224"])
def test_models_that_are_no_plain_transformers_are_refused(model):
    with pytest.raises(ValueError, match=model):
        create_backbone(model, patch_size=16, image_size=(64, 64), levels=None, model_args={}, weights=None)


def test_unknown_model_argument_is_named():
    with pytest.raises(ValueError, match="embed_dims"):
        build("vit_tiny_test", model_args={"embed_dims": 32})


def test_wide_image_size_lays_the_positions_out():
    backbone = build("vit_tiny_test", (32, 96)).eval()
    assert backbone.model.pos_embed.shape == (1, 1 + 2 * 6, 32)
    assert backbone(images(32, 96))[3].shape == (2, 32, 2, 6)


def same(one: TimmBackbone, other: TimmBackbone) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_random_weights_follow_their_seed_alone():
    torch.manual_seed(1)
    first = build("vit_tiny_test", seed=5)
    torch.manual_seed(2)
    assert same(first, build("vit_tiny_test", seed=5))
    assert not same(first, build("vit_tiny_test", seed=6))


def test_global_generators_do_not_move():
    before = torch.get_rng_state()
    build("dinov2_small")
    assert torch.equal(before, torch.get_rng_state())


def test_linears_of_the_blocks_can_be_replaced():
    backbone = build("vit_tiny_test")
    backbone.model.blocks[0].attn.qkv = nn.Linear(32, 96)
    backbone(images(64, 64))[0].sum().backward()
    assert backbone.model.blocks[0].attn.qkv.weight.grad is not None
