"""``format=peft``: PEFT's own loader on a fresh timm backbone gives the adapted model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from recyclelora.exchange.exports import peft as peft_export
from recyclelora.exchange.exports.source import features
from recyclelora.models.backbones import weights
from recyclelora.system.errors import UserError

from .conftest import PLAIN, TINY, asked, moved_source
from .test_timm import LEVELS, METHODS, pretrained_file

DINOV3 = ["backbone=dinov3_base", "backbone.pretrained=false"]
DINOV3 += ["+backbone.model_args.embed_dim=32", "+backbone.model_args.depth=4", "+backbone.model_args.num_heads=2"]
DINOV3 += ["+backbone.model_args.init_values=1.0"]


def module_of(path: Path) -> ModuleType:
    """A file as a module of its own."""
    spec = importlib.util.spec_from_file_location("load_of_an_export", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = {
    "recyclelora": METHODS["recyclelora"],
    "lora": METHODS["lora"],
    "soma": METHODS["soma"],
    "some blocks": [*TINY, "adapter.blocks='2:'", "adapter.targets=['*.attn.proj','*.fc1']"],
    "pruned": [*TINY, *LEVELS],
    "attention that reads the weight": [*TINY, *DINOV3],
}


@pytest.mark.parametrize("case", CASES)
def test_peft_gives_the_adapted_model(tmp_path: Path, case: str):
    source = moved_source(tmp_path, *CASES[case])
    peft_export.write(source, tmp_path, asked()).verify()
    images = torch.randn(2, 3, 64, 96)
    expected, levels = source.adapted(images), source.adapted.levels
    start = features(peft_export.original(source), levels, images)
    assert not torch.allclose(start[-1], expected[-1], atol=1e-3)
    model = PeftModel.from_pretrained(peft_export.original(source), str(tmp_path)).eval()
    for loaded in (model, model.merge_and_unload()):
        for a, b in zip(expected, features(loaded, levels, images), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_the_adapter_is_small_and_of_twice_the_rank(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    ranks = peft_export.write(source, tmp_path, asked()).details["ranks"]
    assert len(ranks) == 16 and set(ranks.values()) == {12}
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert tensors["base_model.model.blocks.0.attn.qkv.lora_A.weight"].shape == (12, 32)
    assert tensors["base_model.model.blocks.0.attn.qkv.lora_B.weight"].shape == (96, 12)
    assert len(tensors) == 32
    assert load_file(tmp_path / "resampled.safetensors").keys() == {"patch_embed.proj.weight", "pos_embed"}
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == 12 and config["lora_alpha"] == pytest.approx(2.0) and not config["rank_pattern"]


@pytest.mark.parametrize(("case", "extra", "version"), [("recyclelora", [], "0.11"), ("soma", ["lora_bias"], "0.14")])
def test_the_configuration_holds_what_is_used_in_a_fixed_order(tmp_path: Path, case: str, extra: list, version: str):
    """PEFT 0.11 refuses keys that it does not know; a set, as its own LoraConfig keeps targets, has no order."""
    source = moved_source(tmp_path, *CASES[case])
    texts = []
    for _ in range(2):
        assert peft_export.write(source, tmp_path, asked()).details["peft"] == version
        texts.append((tmp_path / "adapter_config.json").read_text())
    assert texts[0] == texts[1]
    config = json.loads(texts[0])
    known = ["peft_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules"]
    assert list(config) == [*known, "rank_pattern", "alpha_pattern", "inference_mode", *extra]
    second = "blocks.0.attn.proj" if case == "recyclelora" else "blocks.1.attn.qkv"
    assert config["target_modules"][:2] == ["blocks.0.attn.qkv", second]
    assert f"from version {version} on" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("readable", [True, False])
def test_weights_that_timm_cannot_read_lie_beside_the_adapter(tmp_path: Path, monkeypatch, readable: bool):
    file = pretrained_file(tmp_path)
    if not readable:
        strange = file.with_suffix(".strange")
        file.rename(strange)
        monkeypatch.setitem(weights.READERS, ".strange", weights.READERS[".safetensors"])
        file = strange
    source = moved_source(tmp_path, *TINY, "backbone.pretrained=true", f"backbone.checkpoint={file}")
    folder = tmp_path / "export"
    folder.mkdir()
    outcome = peft_export.write(source, folder, asked())
    outcome.verify()
    assert outcome.details["holds_original_weights"] is not readable
    assert (folder / "base_model.safetensors").exists() is not readable
    load = module_of(folder / "load.py")
    model = load.load(*([str(file)] if readable else []))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = source.adapted(images)
        for a, b in zip(expected, load.features(model, images), strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_layers_of_other_ranks_are_named(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    layer = source.adapted.model.blocks[1].mlp.fc2
    for branch in layer.branches().values():
        branch.lora_a.data = branch.initial.dense_a(128)
    still = source.adapted.model.blocks[2].attn.proj
    for branch in still.branches().values():
        branch.lora_a.data, branch.lora_b.data = branch.initial.dense_a(32), branch.initial.b.clone()
    again = type(source).of(source.run, "last")
    peft_export.write(again, tmp_path, asked()).verify()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["rank_pattern"] == {"blocks.1.mlp.fc2": 6}
    assert config["alpha_pattern"] == {"blocks.1.mlp.fc2": pytest.approx(1.0)}
    assert len(config["target_modules"]) == 15 and "blocks.2.attn.proj" not in config["target_modules"]


@pytest.mark.parametrize(
    ("method", "words"), [("frozen", "adapter=frozen changes nothing"), ("full", "adapter=full changes every tensor")]
)
def test_methods_without_an_adapter_are_refused_by_name(tmp_path: Path, method: str, words: str):
    with pytest.raises(UserError, match=f"format=peft: {words}.*format=timm"):
        peft_export.write(moved_source(tmp_path, *METHODS[method]), tmp_path, asked())


def test_a_method_that_is_no_lora_is_refused_by_name(tmp_path: Path):
    class Magnitude(nn.Linear):
        """Stands for another method's layer."""

    source = moved_source(tmp_path, *TINY)
    source.adapted.model.blocks[1].mlp.fc1 = Magnitude(32, 128)
    with pytest.raises(UserError, match=r"format=peft: adapter=recyclelora is no LoRA \(Magnitude\)"):
        peft_export.write(source, tmp_path, asked())


def test_an_adapter_that_did_not_move_is_refused(tmp_path: Path):
    source = moved_source(tmp_path, *PLAIN, "adapter=lora", "adapter.main.rank=4")
    for name, parameter in source.adapted.named_parameters():
        if name.endswith("lora_b"):
            parameter.data.zero_()
    with pytest.raises(UserError, match="training has not changed any layer of adapter=lora"):
        peft_export.write(source, tmp_path, asked())
