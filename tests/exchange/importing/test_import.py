"""Checkpoints with the true names become runs that compute what the published formulas give for them."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_cityscapes, save_rgb
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

import recyclelora
from recyclelora.commands.evaluate import evaluate
from recyclelora.commands.import_checkpoint import import_checkpoint
from recyclelora.commands.predict import predict
from recyclelora.config.commands import EvaluateConfig, ImportConfig, PredictConfig
from recyclelora.config.compose import ConfigError, home, register_schemas, typed
from recyclelora.system.errors import UserError

from . import published

TINY = [
    "+backbone.model_args={embed_dim: 32, depth: 10, num_heads: 2}",
    "backbone.levels=[2,4,6,9]",
    "data.augment.crop=[64,64]",
    "data.protocol.window=64",
    "data.protocol.stride=48",
    "decoder.width=32",
    "decoder.num_heads=2",
    "decoder.encoder_layers=1",
    "decoder.encoder_width=16",
    "decoder.decoder_layers=3",
    "decoder.decoder_width=16",
    "trainer.accelerator=cpu",
]
RANKS = {
    "rein": ["adapter.num_tokens=100", "adapter.token_rank=3", "adapter.query_width=32"],
    "soma": ["adapter.main.rank=4", "adapter.alpha=4"],
    "recyclelora": ["adapter.main.rank=4", "adapter.sub.rank=2"],
}
PREFIX = {"rein": "backbone.", "soma": "backbone.model.", "recyclelora": "backbone."}


@functools.cache
def options(kind: str, *overrides: str) -> ImportConfig:
    register_schemas()
    given = [f"kind={kind}", "checkpoint=none", *TINY, *RANKS[kind], *overrides]
    with initialize_config_dir(str(home() / "conf")):
        config: ImportConfig = typed(compose("import_checkpoint", given))
    return config


def composed(folder: Path, kind: str, checkpoint: object, *overrides: str) -> ImportConfig:
    config = copy.deepcopy(options(kind, *overrides))
    config.checkpoint, config.cache = str(checkpoint), str(folder / "cache")
    config.output_dir, config.data.root = str(folder / "outputs"), str(folder / "data")
    return config


def tensors(state: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in state.items()}


def saved(path: Path, state: Mapping[str, np.ndarray]) -> str:
    torch.save(tensors(state), path)
    return str(path)


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


def converted(folder: Path) -> str:
    """DINOv2's weights as the projects convert them: patch 16 and a smaller grid."""
    return saved(folder / "dinov2_converted.pth", published.dinov2())


def assert_computes(run_dir: Path, kind: str, state: Mapping[str, np.ndarray]) -> None:
    """The run gives the scores that numpy computes from the checkpoint; without a backbone of its own, on DINOv2's."""
    backbone = published.parted(published.dinov2()) if kind == "soma" else published.dinov2()
    whole = {PREFIX[kind] + name: array for name, array in backbone.items()} | dict(state)
    images = np.random.RandomState(0).randint(0, 256, (1, 3, 64, 64)).astype(np.float32)
    expected = published.logits(kind, whole, images)
    with torch.no_grad():
        got = recyclelora.load(run_dir, accelerator="cpu").segmenter.logits(torch.from_numpy(images)).numpy()
    assert expected.std() > 1
    assert np.linalg.norm(got - expected) < 2e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("whole", [False, True])
def test_rein(tmp_path, whole):
    state = published.rein(whole=whole)
    weights = None if whole else converted(tmp_path)
    run_dir = imported(tmp_path, "rein", {"meta": {"iter": 3}, "state_dict": tensors(state)}, weights)
    assert_computes(run_dir, "rein", state)
    assert (run_dir / "backbone.safetensors").exists() == whole


def test_a_rein_whose_first_query_features_are_a_table(tmp_path):
    state = published.rein(whole=True, features="query_feat")
    with pytest.raises(UserError, match=r"queries_to_features.*; is it for adapter\.link_features=false\?"):
        imported(tmp_path, "rein", tensors(state))
    run_dir = imported(tmp_path, "rein", tensors(state), overrides=("adapter.link_features=false",))
    assert_computes(run_dir, "rein", state)


def test_what_the_first_release_made_of_a_rein_checkpoint_is_refused_until_it_is_imported_again(tmp_path):
    state, option = tensors(published.rein(whole=True, features="query_feat")), "adapter.link_features=false"
    run_dir = imported(tmp_path, "rein", state, overrides=(option,))
    about = json.loads((run_dir / "run.json").read_text())
    del about["checkpoint"]["kind"]
    (run_dir / "run.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"rein\.pth with Rein's merge weight in a wrong order.*import it again"):
        recyclelora.load(run_dir, accelerator="cpu")
    assert imported(tmp_path, "rein", state, overrides=(option,)) == run_dir
    recyclelora.load(run_dir, accelerator="cpu")


def test_every_tensor_of_rein_counts_in_what_is_compared():
    """The comparison could not miss a tensor that was put in the wrong place, or nowhere."""
    state = published.rein(whole=True)
    images = np.random.RandomState(0).randint(0, 256, (1, 3, 64, 64)).astype(np.float32)
    before = published.logits("rein", state, images)
    names = [name for name in state if ".reins." in name or "querys2feat" in name]
    assert len(names) == 13
    for name in names:
        changed = state | {name: state[name] + 0.1 * published.drawn("noise", state[name].shape)}
        difference = published.logits("rein", changed, images) - before
        assert np.linalg.norm(difference) > 1e-3 * np.linalg.norm(before), name


@pytest.mark.parametrize("whole", [False, True])
def test_soma(tmp_path, whole):
    state = published.soma(whole=whole)
    trained = {"state_dict": tensors(state), "ema_state_dict": {"steps": torch.tensor(3)}}
    run_dir = imported(tmp_path, "soma", trained, None if whole else converted(tmp_path))
    assert_computes(run_dir, "soma", state)
    # A key's bias moves all scores of a query alike, so that no output tells it: the tensors themselves.
    key = load_file(run_dir / "adapter.safetensors")["trained/backbone.model.blocks.9.attn.qkv.k.bias"]
    assert np.array_equal(key, state["backbone.model.blocks.9.attn.k.bias"])


def test_soma_with_the_converted_file_that_its_own_tools_write(tmp_path):
    """q, k and v are layers of their own in it, and a data-parallel wrapper may have named the checkpoint's tensors."""
    state = published.soma()
    weights = saved(tmp_path / "dinov2_sora_converted.pth", published.parted(published.dinov2()))
    run_dir = imported(tmp_path, "soma", {f"module.{name}": tensor for name, tensor in tensors(state).items()}, weights)
    assert_computes(run_dir, "soma", state)


def test_recyclelora(tmp_path):
    state = published.recyclelora()
    run_dir = imported(tmp_path, "recyclelora", tensors(state))
    assert_computes(run_dir, "recyclelora", state)
    frozen = load_file(run_dir / "backbone.safetensors")
    assert np.array_equal(frozen["blocks.9.attn.qkv.bias"], state["backbone.blocks.9.attn.qkv.bias"])


def test_recyclelora_in_chunks_of_blocks_and_flat_beside_meta(tmp_path):
    state = published.recyclelora()
    chunked = {n.replace("backbone.blocks.", "backbone.blocks.0."): t for n, t in tensors(state).items()}
    assert_computes(imported(tmp_path, "recyclelora", {"meta": {"epoch": 1}} | chunked), "recyclelora", state)


def test_a_position_embedding_for_larger_crops_is_kept_as_it_is(tmp_path, capsys):
    """Training at 1024 stores a grid of 64x64; here 6x6 instead of 4x4."""
    grid = torch.randn(1, 1 + 36, 32)
    run_dir = imported(tmp_path, "recyclelora", tensors(published.recyclelora()) | {"backbone.pos_embed": grid})
    loaded = recyclelora.load(run_dir, accelerator="cpu")
    assert torch.equal(loaded.segmenter.backbone.model.pos_embed, grid)
    assert loaded.config.backbone.image_size == [96, 96]
    assert "laid out for 96x96 pixels, but the protocol recyclelora slides windows of 64" in capsys.readouterr().out


def test_unconverted_weights_are_converted_as_published(tmp_path):
    """DINOv2's own file, patch 14 and a grid of 37x37, gives what the projects' converted file gives."""
    raw = published.dinov2(grid=37, kernel=14)
    run_dir = imported(tmp_path, "rein", tensors(published.rein()), saved(tmp_path / "dinov2_pretrain.pth", raw))
    grid = raw["pos_embed"][:, 1:].astype(np.float64).reshape(1, 37, 37, 32).transpose(0, 3, 1, 2)
    fitted = published.bicubic(grid, (4, 4)).transpose(0, 2, 3, 1).reshape(1, 16, 32)
    loaded = recyclelora.load(run_dir, accelerator="cpu").segmenter.backbone.model
    kernel = published.bicubic(raw["patch_embed.proj.weight"].astype(np.float64), (16, 16))
    np.testing.assert_allclose(loaded.patch_embed.proj.weight.detach(), kernel, atol=1e-5)
    np.testing.assert_allclose(loaded.pos_embed[:, 1:].detach(), fitted, atol=1e-5)
    assert np.array_equal(loaded.pos_embed[:, :1].detach(), raw["pos_embed"][:, :1])


# --- what the run directory is good for -------------------------------------------------------------------------------


@pytest.fixture
def run_dir(tmp_path):
    return imported(tmp_path, "recyclelora", tensors(published.recyclelora()))


def test_the_run_says_that_it_was_imported(run_dir):
    about = json.loads((run_dir / "run.json").read_text())
    assert about["origin"] == "imported" and about["checkpoint"]["file"] == "recyclelora.pth"
    assert about["checkpoint"]["ignored"] == ["backbone.mask_token", "backbone.norm.weight", "backbone.norm.bias"]
    assert about["checkpoint"]["kind"] == "recyclelora"
    assert len(about["checkpoint"]["sha256"]) == len(about["weights_sha256"]) == 64
    assert not (run_dir / "result.json").exists() and run_dir.name.startswith("recyclelora-dinov2_large-gta2cbm-")
    names = load_file(run_dir / "adapter.safetensors").keys()
    assert {name.split("/")[0] for name in names} == {"trained", "initial"}


def test_the_same_import_is_the_same_run_and_another_checkpoint_another(tmp_path, run_dir):
    before = (run_dir / "adapter.safetensors").read_bytes()
    state = tensors(published.recyclelora())
    assert imported(tmp_path, "recyclelora", state) == run_dir
    assert (run_dir / "adapter.safetensors").read_bytes() == before
    state["decode_head.cls_embed.bias"] = state["decode_head.cls_embed.bias"] + 1
    torch.save(state, tmp_path / "other.pth")
    import_checkpoint(composed(tmp_path, "recyclelora", tmp_path / "other.pth"))
    assert len(list((tmp_path / "outputs/runs").iterdir())) == 2


def test_a_moved_run_finds_its_own_weights(tmp_path, run_dir):
    shutil.move(run_dir, tmp_path / "elsewhere")
    assert_computes(tmp_path / "elsewhere", "recyclelora", published.recyclelora())


def test_an_imported_run_is_evaluated_and_predicts(tmp_path, run_dir):
    make_cityscapes(tmp_path / "data", count=2)
    config = composed(tmp_path, "recyclelora", "none", "data=gta2city")
    mean = evaluate(EvaluateConfig(run=str(run_dir), data=config.data, accelerator="cpu", num_workers=0))
    stored = json.loads(next((run_dir / "evaluations").glob("gta2city-recyclelora-last-*.json")).read_text())
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


def test_every_unknown_tensor_is_listed_with_its_shape(tmp_path):
    state = tensors(published.recyclelora())
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
        ("rein", "querys2feat.bias", "missing: decoder.transformer.queries_to_features.bias"),
        ("soma", "blocks.8.attn.k.bias", "missing: backbone.model.blocks.8.attn.qkv.k.bias"),
        ("soma", "blocks.9.mlp.fc1.lora_A.weight", "missing: backbone.model.blocks.9.mlp.fc1.main.lora_a"),
        ("recyclelora", "blocks.3.attn.proj.lora_B_sub", "missing: backbone.model.blocks.3.attn.proj.sub.lora_b"),
        ("recyclelora", "blocks.3.attn.proj.weight", "1 frozen weights are missing"),
        ("recyclelora", "decode_head.cls_embed.bias", "missing: decoder.class_predictor.bias"),
    ],
)
def test_a_missing_tensor_is_named(tmp_path, kind, left_out, named):
    state = tensors(getattr(published, kind)())
    (name,) = [name for name in state if name.endswith(left_out)]
    del state[name]
    weights = None if kind == "recyclelora" else converted(tmp_path)
    message = refusal(tmp_path, kind, state, weights)
    assert named in message and "\n" not in message


def test_another_shape_is_named(tmp_path):
    state = tensors(published.recyclelora())
    message = refusal(tmp_path, "recyclelora", state, overrides=("adapter.main.rank=3",))
    assert "backbone.model.blocks.0.attn.qkv.main.lora_a (4, 32) instead of (3, 32)" in message
    state["backbone.blocks.0.norm1.bias"] = torch.zeros(33)
    assert "of another shape: blocks.0.norm1.bias" in refusal(tmp_path, "recyclelora", state)


def test_another_kind_is_told(tmp_path):
    message = refusal(tmp_path, "rein", tensors(published.recyclelora()))
    assert "no checkpoint of kind=rein: it holds nothing named like backbone.reins.learnable_tokens_a" in message


def test_other_pretrained_weights_are_told(tmp_path):
    other = published.dinov2()
    other["blocks.2.norm1.bias"] = other["blocks.2.norm1.bias"] + np.float32(0.01)
    message = refusal(tmp_path, "soma", tensors(published.soma()), saved(tmp_path / "other.pth", other))
    assert "trained on other weights" in message and "blocks.2.norm1.bias differ" in message


def test_a_second_backbone_is_refused(tmp_path):
    message = refusal(tmp_path, "recyclelora", tensors(published.recyclelora()), converted(tmp_path))
    assert "leave it out" in message


class Code:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    state = {"state_dict": tensors(published.recyclelora()), "message_hub": Code(tmp_path / "was_here")}
    message = refusal(tmp_path, "recyclelora", state)
    assert "(pickled code or objects are refused): posix.mkdir" in message and "\n" not in message
    assert "python -c" not in message and not (tmp_path / "was_here").exists()


def test_objects_of_mmengine_come_with_the_way_to_strip_them(tmp_path):
    state = {"state_dict": tensors(published.recyclelora()), "message_hub": np.zeros(3)}
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
