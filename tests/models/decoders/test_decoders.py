"""What every decoder must do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from recyclelora.models.decoders.config import DECODERS

from .models import CLASSES, IGNORED, PATCH, features, labels, small, total_loss


def layer(inputs: int, outputs: int, side: int = 1, bias: bool = True) -> int:
    """Parameters of a convolution, or of a linear layer."""
    return inputs * outputs * side**2 + bias * outputs


def normed(inputs: int, outputs: int, side: int = 1) -> int:
    """Of a convolution without bias and the norm behind it."""
    return layer(inputs, outputs, side, bias=False) + 2 * outputs


LEVELS = (256, 512, 1024, 1024)
"""Widths to which DPT reassembles its levels."""
UNIT = 4 * normed(256, 256, 3) + layer(256, 256)
"""Two residual units of DPT's fusion and its projection."""
BLOCK = 2 * 2 * 384 + layer(384, 3 * 384) + layer(384, 384) + layer(384, 4 * 384) + layer(4 * 384, 384)
"""A transformer's block of width 384."""
PARAMETERS = {
    "linear": layer(4 * 1024, 19) + 4 * 2 * 1024,
    "segformer": 4 * layer(1024, 256) + normed(4 * 256, 256) + layer(256, 19),
    # laterals; levels at strides 32 to 4 are doubled in size three times to never, at least one convolution each
    "fpn": 4 * layer(1024, 256) + 4 * normed(256, 128, 3) + 3 * normed(128, 128, 3) + layer(128, 19),
    # norms of the levels, pooled at four scales, laterals and smoothing of the other three, all fused
    "upernet": 4 * 2 * 1024 + 4 * normed(1024, 256) + normed(1024 + 4 * 256, 256, 3)
    + 3 * (normed(1024, 256) + normed(256, 256, 3)) + normed(4 * 256, 256, 3) + layer(256, 19),
    # projections, deconvolutions by 4 and 2 and a convolution by 1/2, all to the fusion's width, four fusions
    "dpt": sum(layer(1024, width) + layer(width, 256, 3, bias=False) for width in LEVELS)
    + layer(256, 256, 4) + layer(512, 512, 2) + layer(1024, 1024, 3) + 4 * UNIT + layer(256, 19),
    # inward, queries, four blocks and a norm, classes and nothing, the mask MLP, upscaled twice
    "eomt": 2 * 1024 + layer(1024, 384) + 100 * 384 + 4 * BLOCK + 2 * 384 + layer(384, 20) + 3 * layer(384, 384)
    + 2 * (layer(384, 384, 2) + 384 * 3**2 + 2 * 384),
    "mask2former": 20_565_204,  # as mmdetection's head, see make_mmdet_fixture.py
}  # fmt: skip
WITH_PYRAMID = ("fpn", "upernet", "mask2former")

every = pytest.mark.parametrize("name", DECODERS)


@every
def test_parameters_at_dinov2_large(name):
    with torch.device("meta"):
        decoder = DECODERS[name]().build([1024] * 4, 19)
    assert sum(p.numel() for p in decoder.parameters()) == PARAMETERS[name]


@every
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 3), (1, 1)])
def test_scores_have_the_size_asked_for(name, size):
    pixels = (PATCH * size[0], PATCH * size[1])
    scores = small(name).eval()(features(2, size), pixels)
    assert scores.shape == (2, CLASSES, *pixels)
    assert scores.dtype == torch.float32 and torch.isfinite(scores).all()


@every
def test_probabilities_sum_to_one_and_keep_the_order(name):
    decoder = small(name).eval()
    scores = decoder(features(), (64, 96))
    probabilities = decoder.probabilities(scores)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 64, 96))
    assert torch.equal(probabilities.argmax(1), scores.argmax(1))
    assert torch.isfinite(decoder.probabilities(torch.zeros(1, CLASSES, 2, 2))).all()


def without_gradient(decoder: nn.Module) -> list[str]:
    """Names of parameters that no loss reaches, once the weights are not those of the start any more: there, all
    places that deformable attention looks at are fixed."""
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    total_loss(decoder, features(), labels()).backward()
    return [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@every
def test_every_parameter_gets_a_gradient(name):
    assert without_gradient(small(name)) == []


@pytest.mark.parametrize("name", WITH_PYRAMID)
def test_every_parameter_gets_a_gradient_with_a_learned_pyramid(name):
    decoder = small(name, pyramid="learned")
    assert any("pyramid" in n for n, _ in decoder.named_parameters())
    assert without_gradient(decoder) == []


@every
def test_a_batch_without_labels_has_finite_losses_and_reaches_every_parameter(name):
    decoder = small(name)
    loss = total_loss(decoder, features(), torch.full_like(labels(), IGNORED))
    loss.backward()
    assert torch.isfinite(loss)
    for parameter in decoder.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()


@every
def test_norms_do_not_decay_matrices_do(name):
    decoder = small(name)
    undecayed = decoder.undecayed()
    names = {n for n, _ in decoder.named_parameters()}
    assert undecayed < names
    norms = {n for n, m in decoder.named_modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm))}
    assert {n.rpartition(".")[0] for n in undecayed} >= norms
    embeddings = {n for n, m in decoder.named_modules() if isinstance(m, nn.Embedding)}
    assert {n.rpartition(".")[0] for n in undecayed} <= norms | embeddings


@every
def test_scores_of_an_image_do_not_depend_on_its_batch(name):
    decoder = small(name).train(name != "fpn")
    both = features()
    alone = decoder([f[:1] for f in both], (64, 96))
    torch.testing.assert_close(decoder(both, (64, 96))[:1], alone, atol=1e-4, rtol=1e-4)
    assert not [n for n, m in decoder.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@every
def test_bfloat16_autocast_stays_close_and_trains(name):
    decoder = small(name).eval()
    exact = decoder.probabilities(decoder(features(), (64, 96)))
    with torch.autocast("cpu", torch.bfloat16):
        scores = decoder(features(), (64, 96))
        loss = total_loss(decoder, features(), labels())
    assert scores.dtype == loss.dtype == torch.float32
    assert (decoder.probabilities(scores) - exact).abs().mean() < 0.02
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in decoder.parameters())


@every
def test_compiled_without_a_graph_break_it_gives_the_same(name):
    decoder = small(name).eval()
    compiled = torch.compile(copy.deepcopy(decoder), backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(features(), (64, 96)), decoder(features(), (64, 96)))


@pytest.mark.slow
@every
def test_overfits_four_images(name):
    decoder = small(name)
    batch, ids = features(4), labels(4)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(200):
        optimizer.zero_grad()
        total_loss(decoder, batch, ids).backward()
        optimizer.step()
    predicted = decoder.eval()(batch, (ids.shape[-2], ids.shape[-1])).argmax(1)
    # the middles of the patches: masks of stride 4 cannot follow every corner
    middles = (slice(None), slice(PATCH // 2, None, PATCH), slice(PATCH // 2, None, PATCH))
    known = ids[middles] != IGNORED
    assert (predicted[middles] == ids[middles])[known].float().mean() > 0.98


@every
def test_what_is_per_class_is_what_one_more_class_makes_longer(name):
    with torch.device("meta"):
        shapes, more = ({n: p.shape for n, p in DECODERS[name]().build([64] * 4, c).named_parameters()} for c in (7, 8))
        declared = DECODERS[name]().build([64] * 4, 7).per_class()
    assert declared == {n for n in shapes if shapes[n] != more[n]}
    assert all(more[n][0] == shapes[n][0] + 1 and more[n][1:] == shapes[n][1:] for n in declared)
