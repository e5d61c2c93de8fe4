"""``format=timm``: what plain timm loads is the adapted backbone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from recyclelora.exchange.exports import peft as peft_export
from recyclelora.exchange.exports import timm as timm_export
from recyclelora.exchange.exports.source import Source, features
from recyclelora.models.backbones.layouts import own_layout
from recyclelora.models.backbones.weights import find_weights, read_weights

from .conftest import PLAIN, TINY, asked, moved_source

LEVELS = ["backbone.model_args.depth=6", "backbone.levels=[0,1,2,3]"]
SOMA = ["adapter.residual=true", "adapter.split_qkv=true", "adapter.train_bias=true"]
SOMA += ["adapter.main={init: svd_minor, rank: 4}", "adapter.sub=null"]
METHODS = {
    "recyclelora": TINY,
    "lora": [*PLAIN, "adapter=lora", "adapter.main.rank=4"],
    "soma": [*PLAIN, "adapter=lora", *SOMA],
    "full": [*PLAIN, "adapter=full"],
    "frozen": [*PLAIN, "adapter=frozen"],
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_can_be_merged(tmp_path: Path, method: str):
    source = moved_source(tmp_path, *METHODS[method])
    timm_export.write(source, tmp_path, asked()).verify()
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(2, 3, 64, 96)
    expected = source.adapted(images)
    for a, b in zip(expected, features(loaded, source.adapted.levels, images), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    start = moved_source(tmp_path, *PLAIN, "adapter=frozen").adapted(images)
    assert torch.equal(expected[-1], start[-1]) == (method == "frozen")


def test_what_the_run_does_not_read_is_as_it_was_before(tmp_path: Path):
    source = moved_source(tmp_path, *TINY, *LEVELS)
    outcome = timm_export.write(source, tmp_path, asked())
    outcome.verify()
    assert len(source.adapted.model.blocks) == 4
    untouched = timm.create_model("vit_tiny_patch16_224", **source.timm_arguments)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.keys() == untouched.state_dict().keys()
    restored = set(outcome.details["restored"])
    assert restored == {n for n in tensors if n.startswith(("blocks.4.", "blocks.5.", "norm."))}
    assert outcome.details["initialised"] == []
    before = timm_export.build_timm("vit_tiny_patch16_224", source.run.config.seed, source.timm_arguments).state_dict()
    assert all(torch.equal(tensors[name], before[name]) for name in restored)
    assert (
        "blocks 0 to 3 of 6. What it does not read is as it was before training: blocks.4, blocks.5, norm."
        in (tmp_path / "README.md").read_text()
    )


def test_config_json_holds_sizes_and_preprocessing(tmp_path: Path):
    timm_export.write(moved_source(tmp_path, *TINY, "backbone.mean=[0.1,0.2,0.3]"), tmp_path, asked())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["model_args"]["img_size"] == [64, 64] and config["model_args"]["patch_size"] == 16
    assert config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3] and config["pretrained_cfg"]["input_size"] == [3, 64, 64]


def test_a_backbone_in_bfloat16_is_exported_without_rounding_the_update(tmp_path: Path):
    from recyclelora.adapters.method import AdapterContext

    config = moved_source(tmp_path, *TINY).run.config
    source = moved_source(tmp_path, *PLAIN, "adapter=frozen")
    config.adapter.method().apply(source.adapted.model.bfloat16(), AdapterContext())
    name = "blocks.0.mlp.fc1"
    layer = source.adapted.model.get_submodule(name)
    assert layer.weight.dtype == torch.bfloat16 and layer.main.lora_b.dtype == torch.float32
    before = Source.of(source.run, "last")
    start = timm_export.whole(before).model.get_parameter(f"{name}.weight").double()
    change = 0.0
    for branch in layer.branches().values():
        branch.lora_b.data += 1e-4  # below the resolution of bfloat16 for most weights
        change += layer.scale * 1e-4 * branch.lora_a.double().sum(0)
    timm_export.write(Source.of(source.run, "last"), tmp_path, asked()).verify()
    exported = load_file(tmp_path / "model.safetensors")[f"{name}.weight"].double()
    torch.testing.assert_close(exported - start, change.expand_as(start), atol=2e-8, rtol=1e-3)


def pretrained_file(folder: Path) -> Path:
    """Random weights of the tiny test backbone with a position embedding of 7x7 patches."""
    options = {"img_size": 112, "patch_size": 16, "num_classes": 0, "embed_dim": 32, "depth": 4, "num_heads": 2}
    torch.manual_seed(5)
    save_file(timm.create_model("vit_tiny_patch16_224", **options).state_dict(), folder / "pretrained.safetensors")
    return folder / "pretrained.safetensors"


@pytest.mark.parametrize("positions", ["pretrained", "laid_out"])
@pytest.mark.parametrize("module", [timm_export, peft_export])
def test_a_backbone_is_laid_out_for_the_size_that_is_asked_for(tmp_path: Path, module, positions: str):
    file = pretrained_file(tmp_path)
    options = ["backbone.pretrained=true", f"backbone.checkpoint={file}", f"backbone.positions={positions}"]
    source = moved_source(tmp_path, *TINY, *options)
    (tmp_path / "export").mkdir()
    wide = Source.of(source.run, "last", (48, 96))
    outcome = module.write(wide, tmp_path / "export", asked())
    outcome.verify()
    assert [check.input[-2:] for check in outcome.checks] == [(48, 96)]
    own = module.write(source, tmp_path / "export", asked())
    own.verify()
    assert [check.input[-2:] for check in own.checks] == [(64, 64), (48, 80)]


@pytest.mark.weights
def test_real_weights(tmp_path: Path):
    source = moved_source(tmp_path, *TINY, "backbone=dinov2_small", "backbone.levels=[2,4,6,8]")
    outcome = timm_export.write(source, tmp_path, asked())
    outcome.verify()
    pretrained = own_layout(read_weights(find_weights("dinov2_small", None, None)))
    tensors = load_file(tmp_path / "model.safetensors")
    assert outcome.details["initialised"] == []
    assert all(torch.equal(tensors[name], pretrained[name]) for name in outcome.details["restored"])
    assert {name.split(".")[1] for name in outcome.details["restored"] if "blocks" in name} == {"9", "10", "11"}
    images = torch.randn(1, 3, *source.image_size)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    for a, b in zip(source.adapted(images), features(loaded, (2, 4, 6, 8), images), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
