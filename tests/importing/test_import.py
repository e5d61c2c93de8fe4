"""Checkpoints with the true names become runs that compute the same."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cityscapes, save_rgb
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

import recyclelora
from recyclelora.config import ConfigError, home, register_schemas, typed
from recyclelora.errors import UserError
from recyclelora.evaluate import evaluate
from recyclelora.import_checkpoint import import_checkpoint
from recyclelora.predict import predict
from recyclelora.schemas import EvaluateConfig, ImportConfig, PredictConfig

from . import released


@functools.cache
def options(kind: str, *overrides: str) -> ImportConfig:
    register_schemas()
    given = [f"kind={kind}", "checkpoint=none", *released.TINY, *released.RANKS[kind], *overrides]
    with initialize_config_dir(str(home() / "conf")):
        config: ImportConfig = typed(compose("import_checkpoint", given))
    return config


def composed(folder: Path, kind: str, checkpoint: object, *overrides: str) -> ImportConfig:
    config = copy.deepcopy(options(kind, *overrides))
    config.checkpoint, config.cache = str(checkpoint), str(folder / "cache")
    config.output_dir, config.data.root = str(folder / "outputs"), str(folder / "data")
    return config


def imported(
    folder: Path, kind: str, state: object, weights: str | None = None, overrides: tuple[str, ...] = ()
) -> Path:
    """Save a checkpoint and import it; the run directory."""
    file = folder / f"{kind}.pth"
    torch.save(state, file)
    config = composed(folder, kind, file, *overrides)
    config.backbone.checkpoint = weights
    import_checkpoint(config)
    (run_dir,) = (folder / "outputs/runs").iterdir()
    return run_dir


def converted(folder: Path, segmenter) -> str:
    """DINOv2's weights as the projects convert them: patch 16 and a smaller grid."""
    torch.save(released.transformer(segmenter), folder / "dinov2_converted.pth")
    return str(folder / "dinov2_converted.pth")


def assert_same(run_dir: Path, segmenter) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        expected = segmenter.logits(images)
        got = recyclelora.load(run_dir, accelerator="cpu").segmenter.logits(images)
    assert expected.std() > 1e-2
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A fresh copy of the tiny model of a kind."""
    folder = tmp_path_factory.mktemp("model")
    build = functools.cache(lambda kind: released.built(composed(folder, kind, "none")))
    return lambda kind: copy.deepcopy(build(kind))


@pytest.mark.parametrize("whole", [False, True])
def test_rein(tmp_path, model, whole):
    segmenter = model("rein")
    state = released.rein(segmenter, whole=whole)
    weights = None if whole else converted(tmp_path, segmenter)
    run_dir = imported(tmp_path, "rein", {"meta": {"iter": 3}, "state_dict": state}, weights)
    with torch.no_grad():
        segmenter.decoder.transformer.queries_features.weight.copy_(released.first_features(state))
    assert_same(run_dir, segmenter)
    assert (run_dir / "backbone.safetensors").exists() == whole


@pytest.mark.parametrize("whole", [False, True])
def test_soma(tmp_path, model, whole):
    segmenter = model("soma")
    trained = {"state_dict": released.soma(segmenter, whole=whole), "ema_state_dict": {"steps": torch.tensor(3)}}
    weights = None if whole else converted(tmp_path, segmenter)
    run_dir = imported(tmp_path, "soma", trained, weights)
    assert_same(run_dir, segmenter)
    assert "ls1.gamma" in str(released.soma(segmenter, whole=True).keys())


def test_recyclelora(tmp_path, model):
    segmenter = model("recyclelora")
    assert_same(imported(tmp_path, "recyclelora", released.recyclelora(segmenter)), segmenter)


def test_recyclelora_in_chunks_of_blocks_and_flat_beside_meta(tmp_path, model):
    segmenter = model("recyclelora")
    state = {n.replace("backbone.blocks.", "backbone.blocks.0."): t for n, t in released.recyclelora(segmenter).items()}
    assert_same(imported(tmp_path, "recyclelora", {"meta": {"epoch": 1}} | state), segmenter)


def test_a_position_embedding_for_larger_crops_is_kept_as_it_is(tmp_path, model, capsys):
    """Training at 1024 stores a grid of 64x64; here 6x6 instead of 4x4."""
    segmenter = model("recyclelora")
    state = released.recyclelora(segmenter)
    grid = torch.randn(1, 1 + 36, 32)
    run_dir = imported(tmp_path, "recyclelora", state | {"backbone.pos_embed": grid})
    loaded = recyclelora.load(run_dir, accelerator="cpu")
    assert torch.equal(loaded.segmenter.backbone.model.pos_embed, grid)
    assert loaded.config.backbone.image_size == [96, 96]
    assert "laid out for 96x96 pixels, but the protocol recyclelora slides windows of 64" in capsys.readouterr().out


def test_unconverted_weights_are_converted_as_published(tmp_path, model):
    """DINOv2's own file, patch 14, gives the run that the projects' converted file gives."""
    segmenter = model("rein")
    state, raw = released.rein(segmenter), released.transformer(segmenter)
    raw["patch_embed.proj.weight"] = torch.randn(32, 3, 14, 14)
    raw["pos_embed"] = torch.randn(1, 1 + 37 * 37, 32)
    torch.save(raw, tmp_path / "dinov2_vitl14_pretrain.pth")
    ours = imported(tmp_path, "rein", state, str(tmp_path / "dinov2_vitl14_pretrain.pth"))
    with torch.no_grad():
        bicubic = functools.partial(torch.nn.functional.interpolate, mode="bicubic", align_corners=False)
        kernel = bicubic(raw["patch_embed.proj.weight"], size=(16, 16))
        grid = bicubic(raw["pos_embed"][:, 1:].reshape(1, 37, 37, 32).permute(0, 3, 1, 2), size=(4, 4))
        positions = torch.cat([raw["pos_embed"][:, :1], grid.permute(0, 2, 3, 1).reshape(1, 16, 32)], 1)
        loaded = recyclelora.load(ours, accelerator="cpu").segmenter.backbone.model
    assert torch.equal(loaded.patch_embed.proj.weight, kernel) and torch.equal(loaded.pos_embed, positions)


# --- what the run directory is good for -------------------------------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path, model):
    return imported(tmp_path, "recyclelora", released.recyclelora(model("recyclelora")))


def test_the_run_says_that_it_was_imported(run_dir):
    about = json.loads((run_dir / "run.json").read_text())
    assert about["origin"] == "imported" and about["checkpoint"]["file"] == "recyclelora.pth"
    assert about["checkpoint"]["ignored"] == ["backbone.mask_token", "backbone.norm.weight", "backbone.norm.bias"]
    assert len(about["checkpoint"]["sha256"]) == len(about["weights_sha256"]) == 64
    assert not (run_dir / "result.json").exists() and run_dir.name.startswith("recyclelora-dinov2_large-gta2cbm-")
    names = load_file(run_dir / "adapter.safetensors").keys()
    assert {name.split("/")[0] for name in names} == {"trained", "initial"}


def test_the_same_import_is_the_same_run_and_another_checkpoint_another(tmp_path, model, run_dir):
    before = (run_dir / "adapter.safetensors").read_bytes()
    state = released.recyclelora(model("recyclelora"))
    assert imported(tmp_path, "recyclelora", state) == run_dir
    assert (run_dir / "adapter.safetensors").read_bytes() == before
    state["decode_head.cls_embed.bias"] = state["decode_head.cls_embed.bias"] + 1
    torch.save(state, tmp_path / "other.pth")
    import_checkpoint(composed(tmp_path, "recyclelora", tmp_path / "other.pth"))
    assert len(list((tmp_path / "outputs/runs").iterdir())) == 2


def test_a_moved_run_finds_its_own_weights(tmp_path, model, run_dir):
    shutil.move(run_dir, tmp_path / "elsewhere")
    assert_same(tmp_path / "elsewhere", model("recyclelora"))


def test_an_imported_run_is_evaluated_and_predicts(tmp_path, run_dir):
    make_cityscapes(tmp_path / "data", count=2)
    config = composed(tmp_path, "recyclelora", "none", "data=gta2city")
    mean = evaluate(EvaluateConfig(run=str(run_dir), data=config.data, accelerator="cpu", num_workers=0))
    stored = json.loads((run_dir / "evaluations/gta2city-recyclelora-last.json").read_text())
    assert stored["mean"] == mean and set(stored["targets"]) == {"cityscapes"}
    save_rgb(tmp_path / "street.png", np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
    predict(PredictConfig(run=str(run_dir), input=str(tmp_path / "street.png"), accelerator="cpu"))
    assert (run_dir / "predictions/ids/street.png").is_file()


@pytest.mark.parametrize(
    ("kind", "data", "adapter", "protocol"),
    [
        ("rein", "gta2cbm", "rein", "rein"),
        ("soma", "city2bm", "soma_released", "recyclelora"),
        ("recyclelora", "gta2cbm", "recyclelora", "recyclelora"),
    ],
)
def test_a_kind_chooses_adapter_and_protocol(tmp_path, kind, data, adapter, protocol):
    config = composed(tmp_path, kind, "none", f"data={data}")
    assert (config.adapter.name, config.data.name, config.data.protocol.name) == (adapter, data, protocol)


@pytest.mark.parametrize("override", ["adapter=lora", "decoder=linear"])
def test_parts_that_no_checkpoint_of_a_kind_has_are_refused(override):
    register_schemas()
    with initialize_config_dir(str(home() / "conf")), pytest.raises(ConfigError, match=r"\.kind.*must be"):
        typed(compose("import_checkpoint", ["kind=rein", "checkpoint=none", override]))


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(folder: Path, kind: str, state: object, weights: str | None = None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        imported(folder, kind, state, weights, overrides)
    assert not list((folder / "outputs/runs").glob("*"))
    return str(caught.value)


def test_every_unknown_tensor_is_listed_with_its_shape(tmp_path, model):
    state = released.recyclelora(model("recyclelora"))
    state |= {"backbone.blocks.0.attn.qkv.magnitude": torch.ones(3), "neck.weight": torch.ones(2, 2)}
    state["decode_head.mask_embed.6.weight"] = torch.ones(1)
    message = refusal(tmp_path, "recyclelora", state)
    assert "3 tensors have no place" in message
    for line in (
        "backbone.blocks.0.attn.qkv.magnitude (3,)",
        "neck.weight (2, 2)",
        "decode_head.mask_embed.6.weight (1,)",
    ):
        assert f"  {line}" in message.splitlines()


@pytest.mark.parametrize(
    ("kind", "left_out", "named"),
    [
        ("rein", "reins.scale", "missing: backbone.model.rein.scale"),
        ("rein", "querys2feat.bias", "missing: decoder.transformer.queries_features.weight"),
        ("soma", "blocks.8.attn.k.bias", "missing: backbone.model.blocks.8.attn.qkv.k.bias"),
        ("soma", "blocks.9.mlp.fc1.lora_A.weight", "missing: backbone.model.blocks.9.mlp.fc1.main.lora_a"),
        ("recyclelora", "blocks.3.attn.proj.lora_B_sub", "missing: backbone.model.blocks.3.attn.proj.sub.lora_b"),
        ("recyclelora", "blocks.3.attn.proj.weight", "1 frozen weights are missing"),
        ("recyclelora", "decode_head.cls_embed.bias", "missing: decoder.class_predictor.bias"),
    ],
)
def test_a_missing_tensor_is_named(tmp_path, model, kind, left_out, named):
    segmenter = model(kind)
    state = getattr(released, kind)(segmenter)
    (name,) = [name for name in state if name.endswith(left_out)]
    del state[name]
    weights = None if kind == "recyclelora" else converted(tmp_path, segmenter)
    message = refusal(tmp_path, kind, state, weights)
    assert named in message and "\n" not in message


def test_another_shape_is_named(tmp_path, model):
    state = released.recyclelora(model("recyclelora"))
    message = refusal(tmp_path, "recyclelora", state, overrides=("adapter.main.rank=3",))
    assert "backbone.model.blocks.0.attn.qkv.main.lora_a (4, 32) instead of (3, 32)" in message
    state["backbone.blocks.0.norm1.bias"] = torch.zeros(33)
    assert "of another shape: blocks.0.norm1.bias" in refusal(tmp_path, "recyclelora", state)


def test_another_kind_is_told(tmp_path, model):
    message = refusal(tmp_path, "rein", released.recyclelora(model("recyclelora")))
    assert "no checkpoint of kind=rein: it holds nothing named like backbone.reins.learnable_tokens_a" in message


def test_other_pretrained_weights_are_told(tmp_path, model):
    segmenter = model("soma")
    state = {name: tensor.clone() for name, tensor in released.soma(segmenter).items()}
    with torch.no_grad():
        segmenter.backbone.model.blocks[2].norm1.bias += 0.01
    message = refusal(tmp_path, "soma", state, converted(tmp_path, segmenter))
    assert "trained on other weights" in message and "blocks.2.norm1.bias differ" in message


def test_a_second_backbone_is_refused(tmp_path, model):
    segmenter = model("recyclelora")
    message = refusal(tmp_path, "recyclelora", released.recyclelora(segmenter), converted(tmp_path, segmenter))
    assert "leave it out" in message


class Code:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, model):
    state = {"state_dict": released.recyclelora(model("recyclelora")), "message_hub": Code(tmp_path / "was_here")}
    message = refusal(tmp_path, "recyclelora", state)
    assert "(pickled code or objects are refused): posix.mkdir" in message and "\n" not in message
    assert "python -c" not in message and not (tmp_path / "was_here").exists()


def test_objects_of_mmengine_come_with_the_way_to_strip_them(tmp_path, model):
    state = {"state_dict": released.recyclelora(model("recyclelora")), "message_hub": np.zeros(3)}
    message = refusal(tmp_path, "recyclelora", state)
    assert "numpy" in message and "\n" not in message
    command = message.partition('python -c "')[2].removesuffix('"')
    (tmp_path / "recyclelora.pth").rename(tmp_path / "IN.pth")
    exec(command.replace("IN.pth", str(tmp_path / "IN.pth")).replace("OUT.pth", str(tmp_path / "OUT.pth")))
    import_checkpoint(composed(tmp_path, "recyclelora", tmp_path / "OUT.pth"))


@pytest.mark.parametrize("content", [b"", b"hello, this is no checkpoint", b"<html>404</html>"])
def test_no_checkpoint_at_all(tmp_path, content):
    file = tmp_path / "no.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"no\.pth: cannot be read as weights: not a file") as caught:
        import_checkpoint(composed(tmp_path, "rein", file))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no such file"):
        import_checkpoint(composed(tmp_path, "rein", tmp_path / "absent.pth"))
