"""The parts of Mask2Former against transformers' own way through the same layers."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder, Mask2FormerTransformerModule

from recyclelora.models.decoders.query_decoder import attention_mask

from .models import features, small


@pytest.fixture
def decoder():
    model = small("mask2former", encoder_layers=2)
    torch.manual_seed(3)
    with torch.no_grad():  # away from the start, where deformable attention looks at fixed places
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_pixel_decoder(decoder):
    ours = decoder.pixel_decoder
    mask_features, levels, positions = ours(features())
    theirs = Mask2FormerPixelDecoder.forward(ours, ours.pyramid(features()))
    torch.testing.assert_close(mask_features, theirs.mask_features, atol=1e-5, rtol=1e-5)
    for level, expected in zip(levels, theirs.multi_scale_features, strict=True):
        torch.testing.assert_close(level, expected, atol=1e-5, rtol=1e-5)
    assert [tuple(p.shape) for p in positions] == [(1, 2 * 3, 32), (1, 4 * 6, 32), (1, 8 * 12, 32)]


def test_transformer_decoder(decoder):
    pixels, levels, positions = decoder.pixel_decoder(features())
    states, masks = decoder.transformer(pixels, levels, positions, None)
    theirs = Mask2FormerTransformerModule.forward(decoder.transformer, levels, pixels)
    for state, expected in zip(states, theirs.intermediate_hidden_states, strict=True):
        torch.testing.assert_close(state, expected.transpose(0, 1), atol=1e-5, rtol=1e-5)
    for mask, expected in zip(masks, theirs.masks_queries_logits, strict=True):
        torch.testing.assert_close(mask, expected, atol=1e-4, rtol=1e-5)


def test_queries_see_their_mask_or_everything():
    masks = torch.full((1, 2, 4, 4), -5.0)
    masks[0, 0, :2] = 5.0
    seen = attention_mask(masks, torch.Size((2, 2)))
    assert seen[0, 0].tolist() == [True, True, False, False]
    assert seen[0, 1].all()


def test_sampling_places_keep_float32_under_autocast(decoder):
    """In bfloat16 the places themselves would be off by a part of a cell."""
    layer, recorded = decoder.pixel_decoder, []
    sampled = torch.nn.functional.grid_sample

    def recording(maps, grid, **options):
        recorded.append((maps.dtype, grid.dtype))
        return sampled(maps, grid, **options)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(torch.nn.functional, "grid_sample", recording)
        layer(features())
    assert set(recorded) == {(torch.float32, torch.float32)} and len(recorded) == 2 * 3


def test_lent_queries_take_the_place_of_the_own_position_embedding(decoder):
    own = decoder.transformer.queries_embedder.weight
    borrowing = small("mask2former", torch.zeros(8, 32), encoder_layers=2).eval()
    state = {k: v for k, v in decoder.state_dict().items() if "queries_embedder" not in k}
    borrowing.load_state_dict(state)
    assert not [n for n, _ in borrowing.named_parameters() if "queries_embedder" in n]
    torch.testing.assert_close(borrowing(features(), (64, 96), own), decoder(features(), (64, 96)))
    lent = torch.randn(8, 32, requires_grad=True)
    torch.stack(list(borrowing.losses(features(), torch.zeros(2, 64, 96).long(), 255, lent).values())).sum().backward()
    assert lent.grad.abs().sum() > 0


def test_first_features_made_from_lent_queries_take_the_place_of_the_table(decoder):
    lent = torch.randn(8, 32, requires_grad=True)
    making = small("mask2former", torch.zeros(8, 32), True, encoder_layers=2).eval()
    assert not [n for n, _ in making.named_parameters() if "queries_features" in n or "queries_embedder" in n]
    layer = making.transformer.queries_to_features
    assert layer.weight.abs().max() <= 32**-0.5  # PyTorch's usual start, which the published code leaves as it is
    state = {n: t for n, t in decoder.state_dict().items() if "queries" not in n}
    making.load_state_dict(state, strict=False)
    decoder.transformer.queries_embedder.weight.data = lent.detach()
    decoder.transformer.queries_features.weight.data = (lent @ layer.weight.T + layer.bias).detach()
    torch.testing.assert_close(making(features(), (64, 96), lent), decoder(features(), (64, 96)))
    losses = making.losses(features(), torch.zeros(2, 64, 96).long(), 255, lent)
    (whole,) = torch.autograd.grad(torch.stack(list(losses.values())).sum(), layer.weight)
    assert whole.abs().sum() > 0 and not {n for n in making.undecayed() if "queries" in n}
