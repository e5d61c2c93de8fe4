"""The same transformer as others store it: Hugging Face's own classes write the files and say what they compute."""

import re

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from recyclelora.models.backbones.loading import timm_names
from recyclelora.models.backbones.timm import build_timm, create_backbone, timm_arguments

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
SHRUNK = {"embed_dim": 32, "depth": 4, "num_heads": 2}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def theirs(kind: str, **options: object) -> torch.nn.Module:
    """A small model of Hugging Face's with every tensor random."""
    config = getattr(transformers, f"{kind}Config")(**SMALL, image_size=64, patch_size=16, **options)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def written(model: torch.nn.Module, folder) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def ours(name: str, weights: dict[str, torch.Tensor], **options: object):
    return create_backbone(
        name, patch_size=16, image_size=(64, 64), levels=(0, 1, 2, 3), model_args=SHRUNK | options, weights=weights
    ).eval()


@pytest.mark.parametrize(
    ("kind", "options", "name", "shrunk"),
    [
        ("Dinov2", {}, "vit_large_patch14_dinov2", {}),
        ("Dinov2WithRegisters", {"num_register_tokens": 4}, "vit_large_patch14_reg4_dinov2", {}),
        (
            "Dinov2WithRegisters",
            {"num_register_tokens": 4, "use_swiglu_ffn": True},
            "vit_giant_patch14_reg4_dinov2",
            {"mlp_ratio": 2 * 88 / 32},
        ),
        ("DINOv3ViT", {"num_register_tokens": 4, "intermediate_size": 128}, "vit_base_patch16_dinov3_qkvb", {}),
        (
            "CLIPVision",
            {"hidden_act": "quick_gelu", "intermediate_size": 128},
            "vit_large_patch14_clip_quickgelu_224",
            {},
        ),
        ("SiglipVision", {"intermediate_size": 128}, "vit_large_patch16_siglip_512", {}),
    ],
)
def test_hugging_faces_files_compute_what_its_own_classes_do(kind, options, name, shrunk, tmp_path):
    model = theirs(kind, **options)
    prefix = {"SiglipVision": 0, "CLIPVision": 1, "Dinov2": 1}.get(kind, 5)
    backbone = ours(name, written(model, tmp_path), **shrunk)
    with torch.no_grad():
        expected = model(IMAGES, output_hidden_states=True).hidden_states[1:]
        got = backbone(IMAGES)
    for level, tokens in zip(got, expected, strict=True):
        patches = tokens[:, prefix:].transpose(1, 2).reshape(level.shape)
        assert torch.linalg.norm(level - patches) < 1e-4 * torch.linalg.norm(patches)


def test_sams_file_from_hugging_face(tmp_path):
    options = {"window_size": 3, "global_attn_indexes": [1, 3], "output_channels": 8}
    model = theirs("SamVision", mlp_ratio=4.0, **options)
    with torch.no_grad():
        expected = model(IMAGES, output_hidden_states=True).hidden_states[1:]
        backbone = ours("samvit_base_patch16", written(model, tmp_path), window_size=3, global_attn_indexes=(1, 3))
        got = backbone(IMAGES)
    for level, cells in zip(got, expected, strict=True):
        assert torch.linalg.norm(level - cells.permute(0, 3, 1, 2)) < 1e-4 * torch.linalg.norm(cells)


# --- wrappers and other orders ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    state = build_timm(
        "vit_large_patch14_dinov2", 0, timm_arguments("vit_large_patch14_dinov2", 16, (64, 64), SHRUNK)
    ).state_dict()
    return state | {"mask_token": torch.zeros(1, 32)}


def parted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SoMA's converted file: rows of q, then of k, then of v of the fused layer, as layers of their own."""
    apart = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            third = len(tensor) // 3
            for index, part in enumerate("qkv"):
                apart[name.replace("qkv", part)] = tensor[index * third : (index + 1) * third]
        else:
            apart[name] = tensor
    return apart


FORMS = {
    "module": lambda s: {f"module.{n}": t for n, t in s.items()},
    "backbone": lambda s: {f"backbone.{n}": t for n, t in s.items()} | {"head.weight": torch.ones(2)},
    "compiled": lambda s: {f"_orig_mod.model.{n}": t for n, t in s.items()},
    "teacher and student": lambda s: (
        {f"teacher.backbone.{n}": t for n, t in s.items()}
        | {f"student.backbone.{n}": t + 1 for n, t in s.items()}
        | {"teacher.dino_head.mlp.0.weight": torch.ones(2)}
    ),
    "teacher's backbone": lambda s: (
        {f"backbone.{n}": t for n, t in s.items()} | {"dino_head.last_layer.weight": torch.ones(2)}
    ),
    "chunks": lambda s: {
        re.sub(r"^blocks\.(\d)\.", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}.", n): t for n, t in s.items()
    },
    "q, k, v apart": parted,
}


@pytest.mark.parametrize("form", FORMS)
def test_known_forms_are_the_same_weights(form, plain):
    model = ours("vit_large_patch14_dinov2", plain).model
    again = ours("vit_large_patch14_dinov2", FORMS[form](plain)).model
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_registers_are_known_without_the_mask_beside_them(plain):
    entry = torch.full((1, 1, 32), 0.5)
    given = {n: t for n, t in plain.items() if n != "mask_token"} | {"register_tokens": torch.ones(1, 4, 32)}
    given["pos_embed"] = torch.cat([entry, given["pos_embed"][:, 1:]], 1)
    model = ours("vit_large_patch14_reg4_dinov2", given).model
    assert torch.equal(model.cls_token, plain["cls_token"] + entry) and model.reg_token.shape == (1, 4, 32)


# --- what a file is, where it is not what was asked for ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"reg_token": torch.ones(1, 4, 32)}, r"4 register tokens instead of none; .* end in _reg"),
        (
            lambda s: s | {"register_tokens": torch.ones(1, 4, 32)},
            r"another variant than the model: 4 register tokens instead of none",
        ),
        (lambda s: {n: t for n, t in s.items() if not n.startswith("blocks.3.")}, "3 blocks instead of 4"),
        (
            lambda s: s | {"patch_embed.proj.weight": torch.ones(48, 3, 16, 16)},
            "another variant than the model: width 48 instead of 32",
        ),
        (
            lambda s: {f"backbone.{n}": t for n, t in s.items()} | {"decode_head.cls_embed.bias": torch.ones(2)},
            r"no pretrained transformer alone: beside its tensors \(backbone\.\*\) .* beginning with decode_head",
        ),
        (
            lambda s: {f"backbone.{n}": t for n, t in s.items()} | {"backbone.reins.scale": torch.ones(())},
            r"trained checkpoint.*holds an adapter \(backbone\.reins\.scale\); .*import_checkpoint\.py",
        ),
        (
            lambda s: {f"backbone.{n}": t for n, t in s.items()} | {f"model.{n}": t for n, t in s.items()},
            r"holds 2 transformers, named backbone\., model\.\*",
        ),
        (
            lambda s: {
                re.sub(r"^blocks\.(\d)\.", lambda m: f"blocks.{int(m[1]) // 2}.{int(m[1]) % 2}.", n): t
                for n, t in s.items()
            },
            "chunks that number them anew",
        ),
        (lambda s: {n: t for n, t in parted(s).items() if n != "blocks.1.attn.k.weight"}, "not all have a weight"),
    ],
)
def test_what_is_something_else_is_named(change, message, plain):
    with pytest.raises(ValueError, match=message):
        ours("vit_large_patch14_dinov2", change(plain))


def test_a_file_without_registers_for_a_model_with_them_is_named(plain):
    with pytest.raises(ValueError, match="no register tokens instead of 4"):
        ours("vit_large_patch14_reg4_dinov2", plain)


def test_biases_that_timms_model_lacks_are_not_dropped(tmp_path):
    """timm's plain DINOv3 has none, since those of the published ViT-B and ViT-L are zeros."""
    model = theirs("DINOv3ViT", num_register_tokens=4, intermediate_size=128)
    state = written(model, tmp_path)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv\.bias is not zero.*qkvb"):
        ours("vit_base_patch16_dinov3", state)
    zeros = {n: torch.zeros_like(t) if re.search(r"[qkv]_proj\.bias", n) else t for n, t in state.items()}
    backbone = ours("vit_base_patch16_dinov3", zeros)
    names = timm_names(backbone.model, zeros)
    assert np.array_equal(names["reg_token"], state["embeddings.register_tokens"])
