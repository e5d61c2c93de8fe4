"""EoMT against transformers' models of the published code, and inside every kind of backbone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import EomtConfig, EomtDinov3Config, EomtDinov3ForUniversalSegmentation, EomtForUniversalSegmentation

from models.backbones.test_timm_backbone import KINDS, build
from recyclelora.adapters.controls.config import VptConfig
from recyclelora.adapters.controls.vpt import Vpt
from recyclelora.adapters.method import AdapterContext
from recyclelora.models.backbones.inner import InnerBlocks
from recyclelora.models.decoders.config import EomtDecoderConfig
from recyclelora.models.decoders.eomt import Eomt, masked_share
from recyclelora.models.segmenter import Segmenter

from .models import IGNORED, LOSS

INSIDE = [kind for kind in KINDS if kind != "sam_base"]
ALONE = ["dinov2_small_reg", "dinov3_base", "eva02_large", "siglip_large"]
"""With registers, with rotary positions, without a final norm, without prefix tokens."""
SHARED = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
    "num_blocks": 3, "num_queries": 6, "num_labels": 5, "num_register_tokens": 4,
}  # fmt: skip


def inside(name: str, count: int = 3, num_classes: int = 5, **options: object) -> Segmenter:
    """A whole segmenter on a shrunken backbone with random weights."""
    backbone = build(name, final_norm=True)
    options = EomtDecoderConfig(inside=True, num_queries=6, num_blocks=count, loss=LOSS, **options)
    torch.manual_seed(0)
    decoder = options.build([32] * 4, num_classes, InnerBlocks(backbone, count))
    assert isinstance(decoder, Eomt)
    return Segmenter(backbone, decoder, mean=[0.0] * 3, std=[1 / 255] * 3, ignore_index=IGNORED, max_steps=100)


def images(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


def labels(height: int = 64, width: int = 64) -> Tensor:
    return torch.randint(0, 5, (2, height, width), generator=torch.Generator().manual_seed(4))


# --- the published model -----------------------------------------------------------------------------------------


def dinov2() -> nn.Module:
    return EomtForUniversalSegmentation(EomtConfig(**SHARED, num_upscale_blocks=2))


def dinov3() -> nn.Module:
    config = EomtDinov3Config(
        **SHARED, intermediate_size=128, layer_norm_eps=1e-5, query_bias=False, value_bias=False,
        pos_embed_rescale=None, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    )  # fmt: skip
    return EomtDinov3ForUniversalSegmentation(config)


SCALES = {"dinov2_small_reg": "ls{}.gamma", "dinov3_small": "gamma_{}"}
STEM = {
    "norm.weight": "layernorm.weight", "norm.bias": "layernorm.bias", "cls_token": "embeddings.cls_token",
    "reg_token": "embeddings.register_tokens", "pos_embed": "embeddings.position_embeddings.weight",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
}  # fmt: skip


def same_weights(model: Segmenter, public: nn.Module, scales: str) -> None:
    """Give our segmenter all weights of transformers' model."""
    state = {name.replace("attention.o_proj", "attention.out_proj"): t for name, t in public.state_dict().items()}
    theirs = {name.replace(".up_proj", ".fc1").replace(".down_proj", ".fc2"): t for name, t in state.items()}

    def of_block(number: str, inside: str) -> Tensor:
        prefix = f"layers.{number}."
        for index in "12":
            if inside == scales.format(index):
                return theirs[f"{prefix}layer_scale{index}.lambda1"]
        if inside.startswith("attn.qkv."):
            kind = inside.rpartition(".")[2]
            return torch.cat([theirs[f"{prefix}attention.{part}_proj.{kind}"] for part in "qkv"])
        return theirs[prefix + inside.replace("attn.proj", "attention.out_proj")]

    def of_stem(name: str) -> Tensor:
        other = STEM[name] if STEM[name] in theirs else STEM[name].replace(".projection", "")
        return theirs[other]

    backbone = model.backbone.model
    found = {
        name: of_block(*name.split(".", 2)[1:]) if name.startswith("blocks.") else of_stem(name)
        for name in backbone.state_dict()
    }
    backbone.load_state_dict({name: found[name].reshape(t.shape) for name, t in backbone.state_dict().items()})
    decoder = model.decoder.state_dict()
    layers = {"0": "conv1", "2": "conv2", "3": "layernorm2d"}
    for name in decoder:
        first, *rest = name.split(".")
        other = {
            "queries": lambda rest: "query.weight",
            "class_head": lambda rest: f"class_predictor.{rest[0]}",
            "mask_head": lambda rest: f"mask_head.fc{int(rest[0]) // 2 + 1}.{rest[1]}",
            "upscale": lambda rest: f"upscale_block.block.{rest[0]}.{layers[rest[1]]}.{rest[2]}",
        }[first](rest)
        decoder[name] = theirs[other]
    model.decoder.load_state_dict(decoder)


@pytest.mark.parametrize("masked", [0.0, 0.4, 1.0], ids="P={}".format)
@pytest.mark.parametrize(("name", "public"), [("dinov2_small_reg", dinov2), ("dinov3_small", dinov3)])
def test_every_output_is_the_published_models(name, public, masked, monkeypatch):
    torch.manual_seed(1)
    theirs, ours = public(), inside(name)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    same_weights(ours, theirs, SCALES[name])
    outputs, predict = [], theirs.predict

    def recorded(tokens: Tensor) -> tuple[Tensor, Tensor]:
        outputs.append(predict(tokens))
        return outputs[-1]

    monkeypatch.setattr(theirs, "predict", recorded)
    theirs.train().attn_mask_probs.fill_(masked)
    ours.train().decoder.masked = [masked] * 3
    with torch.no_grad():
        torch.manual_seed(2)  # both draw the same queries that see everything
        theirs(images())
        torch.manual_seed(2)
        classes, masks = ours.decoder.predict(ours.features(images()), None)
    assert len(outputs) == len(classes) == len(masks) == 4
    for (mask, logits), own_mask, own_logits in zip(outputs, masks, classes, strict=True):
        torch.testing.assert_close(own_mask, mask, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(own_logits, logits, atol=2e-5, rtol=1e-4)
    assert bool((masks[0] < 0).any())  # there was something to mask
    if not masked:
        last = ours.eval().decoder.predict_last(ours.features(images()), None)
        torch.testing.assert_close(last, (classes[-1], masks[-1]))


def published_share(step: int, start: int, end: int) -> float:
    """Section 3.3 with power 0.9, in steps as the released configurations give them."""
    if step < start:
        return 1.0
    return 0.0 if step >= end else (1 - (step - start) / (end - start)) ** 0.9


@pytest.mark.parametrize(
    ("steps", "starts", "ends"),
    [
        (19_902, [3317, 6634, 9951, 13268], [6634, 9951, 13268, 16585]),  # Cityscapes, large
        (88_692, [14782, 36955, 59128], [29564, 51737, 73910]),  # COCO, small and base
        (39_120, [6520, 11410, 16300, 21190, 26080], [13040, 17930, 22820, 27710, 32600]),  # ADE20K, giant
    ],
)
def test_masks_go_when_the_released_configurations_let_them(steps, starts, ends):
    options = EomtDecoderConfig(inside=True)
    for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for step in (0, start - 2, start + 2, (start + end) // 2, end - 2, end + 2, steps):
            found = masked_share(step / steps, block, len(starts), options)
            assert found == pytest.approx(published_share(step, start, end), abs=2e-3)


def test_the_segmenter_tells_the_decoder_how_far_training_is():
    model = inside("dinov2_small")
    assert model.decoder.masked == [1.0] * 3
    model.begin_step(100)
    assert model.decoder.masked == [0.0] * 3
    model.begin_step(30)
    first, *others = model.decoder.masked
    assert 0 < first < 1 and others == [1.0, 1.0]


# --- inside backbones --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INSIDE)
def test_blocks_do_to_the_encoders_tokens_what_they_do_in_the_encoder(name):
    backbone = build(name, final_norm=True).eval()
    inner = InnerBlocks(backbone, 2)
    with torch.no_grad():
        *prefix, patches = (f.flatten(2).transpose(1, 2) for f in backbone(images(48, 80), 2))
        tokens, far = torch.cat([*prefix, patches], 1), sum(part.shape[1] for part in prefix)
        for index in range(2):
            tokens = inner.run(index, tokens, inner.rotations((3, 5), 0), None)
        expected = backbone(images(48, 80))[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens[:, far:], expected)
    rotations = inner.rotations((3, 5), 4)
    if rotations is not None:  # queries are turned by nothing
        sines, cosines = rotations[..., :4, :].chunk(2, -1)
        assert not sines.any() and bool((cosines == 1).all())
        torch.testing.assert_close(rotations[..., 4:, :], inner.rotations((3, 5), 0))


@pytest.mark.parametrize(
    "name", [name if name in ALONE else pytest.param(name, marks=pytest.mark.slow) for name in INSIDE]
)
def test_everything_learns_and_recomputing_changes_nothing(name):
    model = inside(name).train()

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        torch.manual_seed(5)
        torch.stack(list(model(images(48, 80), labels(48, 80)).values())).sum().backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    plain = gradients()
    assert plain.keys() == {key for key, _ in model.named_parameters()}
    model.backbone.model.set_grad_checkpointing(True)
    again = gradients()
    for key, gradient in plain.items():
        torch.testing.assert_close(again[key], gradient, msg=key)
    scores = model.eval()(images(40, 70))
    assert scores.shape == (2, 5, 40, 70) and bool(torch.isfinite(scores).all())


def test_half_precision_masks_as_float32_does():
    model = inside("dinov2_small").train()
    with torch.no_grad():
        exact = model.decoder.predict(model.features(images()), None)[0][-1]
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.decoder.predict(model.features(images()), None)[0][-1]
    assert (exact - rough.float()).abs().max() < 0.05 * exact.abs().max()


def test_queries_see_inside_their_masks_alone_and_patches_everything():
    """A change of one patch reaches, within a block, only the queries that see it, and every patch."""
    model = inside("dinov2_small", count=1).train()
    *prefix, patches = model.features(images())
    decoder, num_prefix = model.decoder, prefix[0].shape[2]
    seen: list[Tensor] = []
    block = model.backbone.model.blocks[-1]
    block.attn.register_forward_pre_hook(lambda _, given, named: seen.append(named["attn_mask"]), with_kwargs=True)
    with torch.no_grad():
        _, masks = decoder.predict([*prefix, patches], None)
    (mask,) = seen
    coarse = nn.functional.interpolate(masks[0], size=(4, 4), mode="bilinear").flatten(2)
    queries = slice(num_prefix, num_prefix + 6)
    assert torch.equal(mask[:, 0, queries, queries.stop :] == 0, coarse > 0)
    assert bool((mask[:, 0, queries, queries.stop :][coarse <= 0] == -torch.inf).all())
    mask = mask.clone()
    mask[:, 0, queries, queries.stop :] = 0
    assert not mask.any()


def test_prompts_of_an_adapter_are_masked_for_nobody():
    model = inside("dinov3_small", count=1).train()
    Vpt(VptConfig(num_prompts=3)).apply(model.backbone.model, AdapterContext())
    masks: list[tuple[Tensor, Tensor]] = []
    block = model.backbone.model.blocks[-1]
    block.register_forward_pre_hook(
        lambda _, given, named: masks.append((given[0], named["attn_mask"])), with_kwargs=True
    )
    torch.stack(list(model(images(), labels()).values())).sum().backward()
    ((tokens, mask),) = masks
    assert tokens.shape == (2, 5 + 3 + 6 + 16, 32) and mask.shape == (2, 1, 30, 30)
    assert not mask[:, :, 5:8].any() and not mask[..., 5:8].any()
    blocked = mask[:, 0] == -torch.inf
    assert bool(blocked[:, 8:14, 14:].any()) and blocked.sum() == blocked[:, 8:14, 14:].sum()
    assert model.backbone.model.vpt.table.grad.any()


def test_parameters_at_dinov2_large():
    """Queries, class head, mask MLP and two steps of upscaling; the blocks are the backbone's."""
    with torch.device("meta"):
        backbone = build("dinov2_large", (512, 512), model_args={}, final_norm=True)
        decoder = EomtDecoderConfig(inside=True).build([1024] * 4, 19, InnerBlocks(backbone, 4))
    heads = 100 * 1024 + (1024 + 1) * 20 + 3 * (1024 + 1) * 1024
    assert sum(p.numel() for p in decoder.parameters()) == heads + 2 * (4 * 1024**2 + (1 + 9 + 2) * 1024) == 11_684_884


def test_a_copy_of_the_segmenter_runs_its_own_blocks():
    model = inside("dinov2_small").eval()
    expected, twin = model(images()), copy.deepcopy(model)
    assert twin.decoder.inner_blocks.backbone is twin.backbone
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(images()), expected)
    assert not [name for name, _ in twin.decoder.named_parameters() if "block" in name]


def test_what_cannot_be_is_refused_in_one_line():
    backbone = build("dinov2_small")
    for count in (0, 4):
        with pytest.raises(ValueError, match=rf"decoder.num_blocks={count}: must lie between 1 and 3"):
            InnerBlocks(backbone, count)
    with pytest.raises(ValueError, match=r"\(SAM\) keep their tokens in a map.*decoder=query_tokens"):
        InnerBlocks(build("sam_base"), 2)
