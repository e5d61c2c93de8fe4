import pytest
import torch
import torch.nn.functional as F

from recyclelora.models import timm_library as library
from recyclelora.models.backbones.loading import load_available, resampled_names
from recyclelora.models.backbones.timm import TimmBackbone, build_timm, create_backbone, timm_arguments

SHRUNK = {"embed_dim": 32, "depth": 4, "num_heads": 2}
IMAGES = torch.randn(2, 3, 70, 42, generator=torch.Generator().manual_seed(1))


def build(model: str, weights=None, patch: int = 14, side: int = 70, **options) -> TimmBackbone:
    args = SHRUNK | options.pop("model_args", {})
    options = {"levels": None} | options
    return create_backbone(
        model, patch_size=patch, image_size=(side, side), model_args=args, weights=weights, **options
    ).eval()


def randomise(backbone: TimmBackbone) -> TimmBackbone:
    """Every tensor random, so that a tensor left out or swapped shows in the features."""
    generator = torch.Generator().manual_seed(7)
    for tensor in backbone.parameters():
        tensor.data = torch.randn(tensor.shape, generator=generator) * 0.3
    return backbone


def with_rest(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that published files hold besides: final norm and the mask of pretraining."""
    return state | {"norm.weight": torch.ones(32), "norm.bias": torch.zeros(32), "mask_token": torch.zeros(1, 32)}


def as_published(state: dict[str, torch.Tensor], registers: bool, swiglu: bool) -> dict[str, torch.Tensor]:
    """A timm state dict under the names of DINOv2's own .pth files."""
    state = dict(state)
    if registers:
        entry = torch.full((1, 1, 32), 0.5)
        state["register_tokens"] = state.pop("reg_token")
        state["cls_token"] = state["cls_token"] - entry
        state["pos_embed"] = torch.cat([entry, state["pos_embed"]], dim=1)
    if swiglu:
        state = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): t for name, t in state.items()}
    return with_rest(state)


def assert_same_features(one: TimmBackbone, other: TimmBackbone) -> None:
    with torch.no_grad():
        for a, b in zip(one(IMAGES), other(IMAGES), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("model", "registers", "swiglu"),
    [
        ("vit_large_patch14_dinov2", False, False),
        ("vit_large_patch14_reg4_dinov2", True, False),
        ("vit_giant_patch14_dinov2", False, True),
        ("vit_giant_patch14_reg4_dinov2", True, True),
    ],
)
def test_dinov2s_own_names_give_the_same_features(model, registers, swiglu):
    original = randomise(build(model))
    published = as_published(original.model.state_dict(), registers, swiglu)
    assert_same_features(original, build(model, published, seed=99))
    assert_same_features(original, build(model, with_rest(original.model.state_dict()), seed=99))


def test_sams_own_names_and_relative_positions():
    shrink = {"global_attn_indexes": (1, 3), "window_size": 3}
    original = randomise(build("samvit_base_patch16", side=168, model_args=shrink))
    renamed = {f"image_encoder.{k.replace('mlp.fc', 'mlp.lin')}": v for k, v in original.model.state_dict().items()}
    renamed |= {"image_encoder.neck.0.weight": torch.ones(1), "prompt_encoder.x": torch.ones(1)}
    assert_same_features(original, build("samvit_base_patch16", renamed, side=168, model_args=shrink))
    small = build("samvit_base_patch16", renamed, side=70, model_args=shrink).model
    assert small.pos_embed.shape == (1, 5, 5, 32)
    assert small.blocks[1].attn.rel_pos_h.shape == (9, 16)
    assert torch.equal(small.blocks[0].attn.rel_pos_h, original.model.blocks[0].attn.rel_pos_h)


def test_openai_clips_own_names():
    model = "vit_large_patch14_clip_quickgelu_224"
    original = randomise(build(model))
    names = {
        "patch_embed.proj": "conv1",
        "pos_embed": "positional_embedding",
        "blocks.": "transformer.resblocks.",
        "norm_pre": "ln_pre",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "qkv.": "in_proj_",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "cls_token": "class_embedding",
    }
    renamed = {
        "token_embedding.weight": torch.ones(1),
        "visual.proj": torch.ones(32, 8),
        "visual.ln_post.bias": torch.ones(32),
    }
    for name, tensor in original.model.state_dict().items():
        for timm, theirs in names.items():
            name = name.replace(timm, theirs)
        squeeze = name in ("positional_embedding", "class_embedding")
        renamed[f"visual.{name}"] = tensor.squeeze() if squeeze else tensor
    assert_same_features(original, build(model, renamed))


@pytest.mark.parametrize("published", [False, True])
def test_resampling_is_ours_and_happens_once(published):
    state = randomise(build("vit_small_patch14_reg4_dinov2")).model.state_dict()
    given = as_published(state, True, False) if published else state
    fitted = build("vit_small_patch14_reg4_dinov2", given, patch=16, side=64).model
    kernel = F.interpolate(state["patch_embed.proj.weight"], (16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(fitted.patch_embed.proj.weight, kernel)
    grid = state["pos_embed"].reshape(1, 5, 5, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (4, 4), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).reshape(1, 16, 32)
    assert torch.equal(fitted.pos_embed, expected)


def test_grid_of_equal_count_but_other_sides_is_resampled():
    state = randomise(build("vit_small_patch14_dinov2", side=56)).model.state_dict()
    options = {"patch_size": 14, "levels": None, "model_args": SHRUNK}
    wide = create_backbone("vit_small_patch14_dinov2", image_size=(28, 112), weights=state, **options).model
    assert wide.pos_embed.shape == state["pos_embed"].shape
    assert not torch.allclose(wide.pos_embed, state["pos_embed"])


def test_timms_resampling_can_be_chosen():
    state = build("vit_small_patch14_dinov2").model.state_dict()
    ours = build("vit_small_patch14_dinov2", state, patch=16, side=64).model
    timms = build("vit_small_patch14_dinov2", state, patch=16, side=64, resampling="timm").model
    assert not torch.allclose(ours.patch_embed.proj.weight, timms.patch_embed.proj.weight)


def test_half_precision_files_fill_a_float32_model():
    state = {name: tensor.half() for name, tensor in build("vit_small_patch14_dinov2").model.state_dict().items()}
    loaded = build("vit_small_patch14_dinov2", state)
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}


def test_blocks_behind_the_last_level_are_dropped_from_the_file():
    state = build("vit_small_patch14_dinov2", model_args={"depth": 6}).model.state_dict()
    options = {"patch_size": 14, "image_size": (70, 70), "model_args": SHRUNK | {"depth": 6}}
    cut = create_backbone("vit_small_patch14_dinov2", levels=(0, 1, 2, 3), weights=state, **options)
    assert cut.depth == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.2.attn.qkv.weight"), r"missing: blocks\.2\.attn\.qkv\.weight"),
        (lambda s: s.update(spare=torch.ones(1)), "unexpected: spare"),
        (lambda s: s.update({"blocks.0.norm3.weight": torch.ones(1)}), r"unexpected: blocks\.0\.norm3\.weight"),
        (lambda s: s.update({"blocks.0.norm1.weight": torch.ones(7)}), r"of another shape: blocks\.0\.norm1\.weight"),
        (lambda s: s.clear() or s.update(foreign=torch.ones(1)), r"missing: .* and 5\d more; unexpected: foreign"),
        (lambda s: s.update(pos_embed=torch.ones(1, 13, 32)), "12 patches is no square grid"),
    ],
)
def test_anything_that_does_not_fit_is_named(change, message):
    state = dict(build("vit_small_patch14_dinov2").model.state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        build("vit_small_patch14_dinov2", state)


def test_positions_for_a_model_without_them_are_unexpected():
    state = dict(build("vit_base_patch16_dinov3", patch=16, side=64).model.state_dict())
    with pytest.raises(ValueError, match="unexpected: pos_embed"):
        build("vit_base_patch16_dinov3", state | {"pos_embed": torch.ones(1, 16, 32)}, patch=16, side=64)


def test_dinov3s_own_names_give_the_same_features(capsys):
    original = randomise(build("vit_base_patch16_dinov3"))
    renamed = {"mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.ones(4), "norm.weight": torch.ones(32)}
    for name, tensor in original.model.state_dict().items():
        name = name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        renamed[name.replace("reg_token", "storage_tokens")] = tensor
    renamed |= {f"blocks.{index}.attn.qkv.bias": torch.zeros(96) for index in range(4)}
    assert_same_features(original, build("vit_base_patch16_dinov3", renamed))
    assert capsys.readouterr().out == ""


def test_a_whole_model_gets_what_the_weights_hold_resampled_in_the_same_way():
    published = with_rest(as_published(randomise(build("vit_large_patch14_dinov2")).model.state_dict(), False, False))
    published["norm.weight"] = torch.full((32,), 2.0)
    pruned = build("vit_large_patch14_dinov2", published, patch=16, side=64, levels=[0, 1, 2, 3]).model.state_dict()
    arguments = timm_arguments("vit_large_patch14_dinov2", 16, (64, 64), SHRUNK | {"depth": 5})
    whole = build_timm("vit_large_patch14_dinov2", 0, arguments)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    missing = load_available(whole, published, "bicubic")
    after = whole.state_dict()
    assert missing == {name for name in before if name.startswith("blocks.4.")}
    assert all(torch.equal(after[name], before[name]) for name in missing)
    assert all(torch.equal(after[name], tensor) for name, tensor in pruned.items())
    assert (after["norm.weight"] == 2).all()
    assert resampled_names(whole) == ["pos_embed", "patch_embed.proj.weight"]


def test_tensors_of_another_shape_are_left_alone():
    whole = build_timm("vit_large_patch14_dinov2", 0, timm_arguments("vit_large_patch14_dinov2", 14, (70, 70), SHRUNK))
    assert load_available(whole, {"norm.weight": torch.ones(64)}, "bicubic") == set(whole.state_dict())


@pytest.mark.parametrize(
    ("model", "unfilled"),
    [("vit_small_patch14_dinov2", True), ("samvit_base_patch16", True), ("vit_small_patch16_dinov3", False)],
)
def test_no_random_values_are_drawn_for_tensors_that_weights_fill(monkeypatch, model: str, unfilled: bool):
    patch = 14 if "14" in model else 16
    size = {"patch": patch, "side": 4 * patch}
    weights = build(model, **size).model.state_dict()
    known, drawn = library.timm.create_model, []

    def create(*args, **kwargs):
        built = known(*args, **kwargs)
        drawn.append(not next(built.parameters()).is_meta)
        return built

    monkeypatch.setattr(library.timm, "create_model", create)
    filled = build(model, weights, **size).model
    assert drawn == ([False] if unfilled else [False, True])  # what a model computes itself, it computes
    assert {name: tensor.device.type for name, tensor in filled.state_dict().items()} == dict.fromkeys(weights, "cpu")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in filled.state_dict().items())
    assert not [name for name, buffer in filled.named_buffers() if buffer.is_meta]
