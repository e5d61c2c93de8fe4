from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recyclelora.models.decoders.config import Mask2FormerDecoderConfig
from recyclelora.models.decoders.loss_options import MaskLossConfig
from recyclelora.models.decoders.mask2former import Mask2Former
from recyclelora.models.decoders.mask2former_keys import from_mmdet, our_names
from recyclelora.models.decoders.mask_loss import class_masks

from .fixtures import rule

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def published():
    """What mmdetection's head computes; see make_mmdet_fixture.py."""
    return load_file(FIXTURES / "mask2former_mmdet.safetensors")


def mmdet_shapes() -> dict[str, torch.Size]:
    """Names and shapes of the published head at DINOv2-L and 19 classes."""
    lines = [line.split() for line in (FIXTURES / "mmdet_names.txt").read_text().splitlines()]
    return {name: torch.Size(map(int, shape)) for name, *shape in lines}


def reduced_names() -> dict[str, torch.Size]:
    """mmdetection's names in the reduced head, with the shapes that ours has."""
    shapes = {name: p.shape for name, p in reduced().named_parameters()}
    names = {}
    for name in mmdet_shapes():
        ours = our_names(name)
        if ours[0] in shapes:
            names[name] = torch.Size((len(ours) * shapes[ours[0]][0], *shapes[ours[0]][1:]))
    names["pixel_decoder.level_encoding.weight"] = shapes["pixel_decoder.level_embed"]
    return names


def reduced(**options) -> Mask2Former:
    torch.manual_seed(0)
    return Mask2FormerDecoderConfig(
        width=rule.WIDTH, num_queries=rule.QUERIES, num_heads=rule.HEADS, encoder_layers=rule.ENCODER_LAYERS,
        encoder_width=rule.ENCODER_WIDTH, decoder_layers=rule.DECODER_LAYERS, decoder_width=rule.DECODER_WIDTH,
        loss=MaskLossConfig(num_points=rule.POINTS), **options,
    ).build([rule.CHANNELS] * 4, rule.CLASSES)  # fmt: skip


@pytest.fixture
def decoder():
    """Ours with mmdetection's weights."""
    model = reduced()
    model.load_state_dict(from_mmdet(rule.weights(reduced_names())))
    return model


def test_predictions_are_those_of_the_published_head(decoder, published):
    classes, masks = decoder.predict(rule.features(), None)
    torch.testing.assert_close(torch.stack(classes), published["classes"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(torch.stack(masks), published["masks"], atol=1e-4, rtol=1e-5)


def test_matching_is_that_of_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    classes, masks = decoder.predict(rule.features(), None)
    targets = class_masks(rule.labels(), rule.CLASSES, rule.IGNORED)
    present = targets.any(-1).any(-1)
    matched = decoder.loss.match(torch.stack(classes), masks, targets, present)
    assert torch.equal(matched.queries, published["matches"][:, present])
    assert torch.equal(present, published["matches"][0] >= 0)


def each_loss(decoder, labels):
    classes, masks = decoder.predict(rule.features(), None)
    targets = class_masks(labels, rule.CLASSES, rule.IGNORED)
    present = targets.any(-1).any(-1)
    matched = decoder.loss.match(torch.stack(classes), masks, targets, present)
    losses = decoder.loss.compare(torch.stack(classes), masks, targets, present, matched)
    return torch.stack(list(losses.values()), 1)


def test_losses_are_those_of_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    losses = each_loss(decoder, rule.labels())
    torch.testing.assert_close(losses, published["losses"], atol=1e-5, rtol=1e-5)


def test_an_image_without_labels_counts_as_in_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    labels = rule.labels()
    labels[0] = rule.IGNORED
    torch.testing.assert_close(each_loss(decoder, labels), published["losses_half_unlabelled"], atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_published_head(decoder, published, monkeypatch):
    monkeypatch.setattr(torch, "rand", rule.points)
    losses = decoder.losses(rule.features(), rule.labels(), rule.IGNORED)
    torch.stack(list(losses.values())).sum().backward()
    kept = {name.removeprefix("gradient of "): g for name, g in published.items() if name.startswith("gradient")}
    assert len(kept) == 2
    for name, gradient in kept.items():
        error = (decoder.get_parameter(our_names(name)[0]).grad - gradient).abs().max()
        assert error <= 1e-4 * gradient.abs().max()  # how float32 sums round depends on the number of threads


def test_every_published_name_and_shape_has_its_place():
    with torch.device("meta"):
        model = Mask2FormerDecoderConfig().build([1024] * 4, 19)
        published_state = {name: torch.empty(shape) for name, shape in mmdet_shapes().items()}
    ours = from_mmdet(published_state)
    assert {n: tuple(t.shape) for n, t in ours.items()} == {n: tuple(t.shape) for n, t in model.state_dict().items()}
    assert sum(t.numel() for t in published_state.values()) == 20_565_204


def test_fused_projections_are_cut_into_query_key_and_value():
    fused = torch.arange(12.0).view(6, 2)
    ours = from_mmdet({"transformer_decoder.layers.3.self_attn.attn.in_proj_weight": fused})
    parts = [ours[f"transformer.decoder.layers.3.self_attn.{p}_proj.weight"] for p in "qkv"]
    assert torch.equal(torch.cat(parts), fused) and len(ours) == 3


@pytest.mark.parametrize("name", ["conv_seg.weight", "pixel_decoder.input_convs.0.conv", "query_embed.weight.x"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match=name):
        our_names(name)


def test_exactly_the_published_names_do_not_decay():
    """In mmdetection's terms: every norm, and what the recipe names by `query_embed` and `level_embed`."""
    exempt = {
        ours
        for name in mmdet_shapes()
        if "norm" in name or ".gn." in name or name.startswith(("query_embed", "level_embed"))
        for ours in our_names(name)
    }
    with torch.device("meta"):
        assert Mask2FormerDecoderConfig().build([1024] * 4, 19).undecayed() == exempt


def test_scores_follow_the_published_order(decoder):
    """Masks are enlarged as logits, then squashed, then summed."""
    classes, masks = decoder.predict(rule.features(), None)
    large = torch.nn.functional.interpolate(masks[-1], size=(64, 96), mode="bilinear", align_corners=False)
    chances = classes[-1].softmax(-1)
    by_hand = sum(chances[:, q, :-1, None, None] * large[:, q, None].sigmoid() for q in range(rule.QUERIES))
    torch.testing.assert_close(decoder(rule.features(), (64, 96)), by_hand)


def test_too_few_queries_are_refused():
    with pytest.raises(ValueError, match=r"num_queries=4.*5 classes"):
        Mask2FormerDecoderConfig(width=32, num_queries=4).build([32] * 4, 5)


def test_the_start_is_the_published_one():
    torch.manual_seed(0)
    decoder = Mask2FormerDecoderConfig(encoder_layers=1, decoder_layers=1).build([64] * 4, 5)
    attention = decoder.pixel_decoder.encoder.layers[0].self_attn
    assert not attention.sampling_offsets.weight.any() and not attention.attention_weights.weight.any()
    offsets = attention.sampling_offsets.bias.view(8, 3, 4, 2)
    # eight heads look to eight sides, their four points one to four cells away
    assert offsets[0, 0].tolist() == [[1, 0], [2, 0], [3, 0], [4, 0]]
    torch.testing.assert_close(offsets[1, 2], torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]]))
    layer = decoder.transformer.decoder.layers[0]
    for weight in (layer.cross_attn.in_proj_weight, layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight):
        assert weight.std().item() == pytest.approx((2 / (4 * 256)) ** 0.5, rel=0.02)
    assert layer.fc1.weight.std().item() == pytest.approx((2 / (2048 + 256)) ** 0.5, rel=0.02)
