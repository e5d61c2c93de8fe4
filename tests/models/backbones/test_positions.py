"""Position embeddings at other sizes: the oracle is a backbone that is laid out for that size from the same file."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from recyclelora.models.backbones import positions as module
from recyclelora.models.backbones.timm import TimmBackbone, create_backbone

SHRUNK = {"embed_dim": 32, "depth": 4, "num_heads": 2}
SAM = {"global_attn_indexes": (1, 3), "window_size": 3}
MODELS = {
    "vit_small_patch14_dinov2": {},
    "vit_small_patch14_reg4_dinov2": {},
    "vit_large_patch14_clip_quickgelu_224": {},
    "vit_large_patch16_siglip_256": {},
    "eva02_large_patch14_224": {},
    "samvit_base_patch16": SAM,
}
"""Every kind of position embedding in use: with and without entries for class and register tokens, with rotations,
as a grid with relative tables."""
CROP, OTHER = (64, 64), (48, 112)


def random_state(model: str, side: int = 112) -> dict[str, torch.Tensor]:
    """A file: every tensor random, the position embedding on a grid of 7 x 7."""
    args = SHRUNK | MODELS[model]
    backbone = create_backbone(
        model, patch_size=16, image_size=(side, side), levels=None, model_args=args, weights=None
    )
    generator = torch.Generator().manual_seed(7)
    return {name: 0.3 * torch.randn(t.shape, generator=generator) for name, t in backbone.model.state_dict().items()}


def build(model: str, size: tuple[int, int], state: dict[str, torch.Tensor], **options) -> TimmBackbone:
    args = SHRUNK | MODELS[model]
    return create_backbone(
        model, patch_size=16, image_size=size, levels=None, model_args=args, weights=state, **options
    ).eval()


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def features(backbone: TimmBackbone, size: tuple[int, int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack(backbone(images(*size)))


@pytest.mark.parametrize("resampling", ["bicubic", "timm"])
@pytest.mark.parametrize("model", MODELS)
def test_every_size_is_resampled_once_from_the_file(model, resampling):
    state = random_state(model)
    backbone = build(model, CROP, state, resampling=resampling)
    for size in (OTHER, (112, 112), (160, 80), CROP):
        laid_out = build(model, size, state, resampling=resampling)
        assert torch.equal(features(backbone, size), features(laid_out, size))


@pytest.mark.parametrize("model", MODELS)
def test_the_size_of_the_crop_is_what_it_was_and_others_were_resampled_twice(model):
    state = random_state(model)
    once, twice = (build(model, CROP, state, positions=kind) for kind in ("pretrained", "laid_out"))
    assert torch.equal(features(once, CROP), features(twice, CROP))
    error = (features(once, OTHER) - features(twice, OTHER)).norm() / features(once, OTHER).norm()
    assert error > 1e-3
    shapes = [{name: t.shape for name, t in model.state_dict().items()} for model in (once, twice)]
    assert shapes[0] == shapes[1] and once.own_buffers == twice.own_buffers


def test_the_first_releases_way_is_timms_on_what_is_laid_out():
    model = "vit_small_patch14_dinov2"
    twice = build(model, CROP, random_state(model), positions="laid_out")
    with torch.no_grad():
        expected = twice.model.forward_intermediates(
            images(*OTHER), indices=[0, 1, 2, 3], norm=False, output_fmt="NCHW", intermediates_only=True
        )
    assert torch.equal(features(twice, OTHER), torch.stack(expected))


def test_the_embedding_is_plain_bicubic_interpolation_of_the_pretrained_grid():
    model = "vit_small_patch14_reg4_dinov2"  # no entries for class and register tokens
    state = random_state(model)
    backbone = build(model, CROP, state)
    grid = state["pos_embed"].reshape(1, 7, 7, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (3, 7), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(1, 21, 32)
    assert torch.equal(backbone.positions.at((3, 7), backbone.model.pos_embed), expected)


def test_a_size_is_resampled_when_it_is_first_seen_and_only_a_few_are_kept(monkeypatch):
    model, seen = "vit_small_patch14_dinov2", []
    backbone = build(model, CROP, random_state(model))
    resize = module.resize_tokens
    monkeypatch.setattr(module, "resize_tokens", lambda *given: seen.append(given[2]) or resize(*given))
    for _ in range(3):
        features(backbone, OTHER)
    features(backbone, CROP)
    assert seen == [(3, 7)]
    for width in range(5, 20):
        features(backbone, (64, 16 * width))
    assert len(seen) == 16 and len(backbone.positions._kept) == module.KEPT_SIZES


def test_what_was_kept_without_gradients_serves_training():
    model = "vit_small_patch14_dinov2"
    backbone = build(model, CROP, random_state(model)).requires_grad_(False)
    backbone.model.blocks[0].mlp.fc1.weight.requires_grad_(True)
    with torch.inference_mode():
        backbone(images(*OTHER))
    backbone(images(*OTHER))[-1].sum().backward()
    assert backbone.model.blocks[0].mlp.fc1.weight.grad is not None


@pytest.mark.parametrize("model", ["vit_small_patch14_dinov2", "samvit_base_patch16"])
def test_a_trained_embedding_keeps_its_change_at_other_sizes(model):
    """The pretrained part from its own grid, what training added from the grid it was trained on."""
    state = random_state(model)
    backbone = build(model, CROP, state)
    features(backbone, OTHER)  # kept, and then out of date
    change = torch.randn(backbone.model.pos_embed.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        backbone.model.pos_embed += change
    prefix = backbone.positions.num_prefix
    patches = change if change.dim() == 4 else change[:, prefix:].reshape(1, 4, 4, 32)
    added = F.interpolate(patches.permute(0, 3, 1, 2), (3, 7), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    start = build(model, OTHER, state).model.pos_embed
    if change.dim() == 3:
        added = torch.cat([change[:, :prefix], added.reshape(1, 21, 32)], 1)
    found = backbone.positions.at((3, 7), backbone.model.pos_embed.detach())
    torch.testing.assert_close(found, start + added, atol=1e-6, rtol=1e-6)
    backbone(images(*OTHER))[-1].square().mean().backward()
    assert backbone.model.pos_embed.grad.abs().sum() > 0


def test_a_copy_has_positions_of_its_own_and_half_precision_keeps_its_kind():
    model = "vit_small_patch14_dinov2"
    state = random_state(model)
    backbone = copy.deepcopy(build(model, CROP, state))
    assert torch.equal(features(backbone, OTHER), features(build(model, OTHER, state), OTHER))
    backbone.to(torch.bfloat16)
    with torch.no_grad():
        assert backbone(images(*OTHER).bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_small_patch14_dinov2", "eva02_large_patch14_224", "samvit_base_patch16"])
def test_compiled_and_exported_it_computes_the_same(model):
    state = random_state(model)
    backbone = build(model, CROP, state).requires_grad_(False)
    compiled = torch.compile(copy.deepcopy(backbone), backend="eager")
    for size in (CROP, OTHER, (80, 80)):
        torch.testing.assert_close(features(compiled, size), features(backbone, size), atol=1e-5, rtol=1e-5)
    sides = {2 + i: 16 * Dim(name, min=2, max=4096) for i, name in enumerate(("rows", "columns"))}
    if model.startswith("samvit"):
        return  # its windows are padded by the size: one size at a time
    program = torch.export.export(backbone, (images(64, 96),), dynamic_shapes=(sides,)).module()
    for size in (CROP, OTHER, (160, 80)):
        torch.testing.assert_close(torch.stack(program(images(*size))), features(backbone, size), atol=1e-5, rtol=1e-5)
