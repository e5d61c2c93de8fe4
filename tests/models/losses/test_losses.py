"""Regularisers by their formulas, worked out another way, and in a whole segmenter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import TINY

from recyclelora.config.build import build_model
from recyclelora.config.compose import ConfigError
from recyclelora.models.losses.config import GecoConfig, OrthogonalityConfig, StyleConsistencyConfig
from recyclelora.models.losses.geco import Geco, squared_geodesic, tangents
from recyclelora.models.losses.loss import LossInputs
from recyclelora.models.losses.orthogonality import Orthogonality, overlap
from recyclelora.models.losses.style_consistency import StyleConsistency
from recyclelora.system.checks import identity_fields

GENERATOR = torch.Generator().manual_seed(0)
TOKENS = torch.randn(30, 16, generator=GENERATOR)


def tangents_by_svd(tokens: np.ndarray, i: int) -> tuple[np.ndarray, float]:
    """The projection on the four largest right singular directions of the offsets, and the share they leave."""
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit[i]))[1:9]
    offsets = unit[nearest] - unit[i]
    _, _, rows = np.linalg.svd(offsets, full_matrices=False)
    projection = rows[:4].T @ rows[:4]
    left = offsets - offsets @ projection
    return projection, float(np.mean((left**2).sum(1) / (offsets**2).sum(1)))


def test_gecos_tangents_are_the_largest_singular_directions_of_the_offsets():
    basis, curvature = tangents(TOKENS, 8, 4)
    for i in (0, 7, 29):
        projection, left = tangents_by_svd(TOKENS.double().numpy(), i)
        found = basis[i].T @ basis[i]
        np.testing.assert_allclose(found.numpy(), projection, atol=1e-4)
        assert float(curvature[i]) == pytest.approx(left, rel=1e-4)


@pytest.mark.parametrize(("relative_to", "scale"), [("norm", 1.0), ("rms", 16**-0.5)])
def test_gecos_moves_are_as_long_as_curvature_says_and_stay_in_the_tangents_of_curved_tokens(relative_to, scale):
    geco = Geco(GecoConfig(relative_to=relative_to))
    level = TOKENS.T.reshape(1, 16, 5, 6)
    shift = geco.shift(level).flatten(2)[0].T
    kept = 0
    curvatures = [tangents_by_svd(TOKENS.double().numpy(), i)[1] for i in range(30)]
    for i, curvature in enumerate(curvatures):
        length = 0.1 / (1 + curvature) * scale * float(TOKENS[i].norm())
        assert float(shift[i].norm()) == pytest.approx(length, rel=1e-3)
        projection = torch.from_numpy(tangents_by_svd(TOKENS.double().numpy(), i)[0]).float()
        inside = torch.allclose(projection @ shift[i], shift[i], atol=1e-5)
        assert inside == (curvature >= sorted(curvatures)[14])
        kept += inside
    assert kept == 16


def test_geco_moves_no_more_tokens_than_it_may():
    shift = Geco(GecoConfig(tokens=12)).shift(TOKENS.T.reshape(1, 16, 5, 6))
    assert int(shift.abs().sum(1).count_nonzero()) == 12


def test_the_geodesic_of_two_distributions_by_hand():
    p = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    half = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    assert float(squared_geodesic(p, half)) == pytest.approx((np.pi / 4) ** 2, abs=1e-5)
    assert float(squared_geodesic(p, 1 - p)) == pytest.approx((np.pi / 2) ** 2, abs=1e-5)
    assert float(squared_geodesic(half, half)) < 1e-12
    near = torch.tensor([0.5001, 0.4999], dtype=torch.float64).view(1, 2, 1, 1)
    exact = (near.sqrt() * half.double().sqrt()).sum(1).arccos().square()
    assert float(squared_geodesic(near.float(), half)) == pytest.approx(float(exact), rel=1e-2)


def test_gecos_loss_is_the_squared_geodesic_and_its_gradient_passes_the_moved_tokens_alone():
    level = TOKENS.T.reshape(1, 16, 5, 6).requires_grad_()
    seen = []

    def decoded(features):
        seen.append(features[-1])
        return features[-1][:, :3]

    for compares, probabilities in (("probabilities", lambda s: (2 * s).softmax(1)), ("scores", None)):
        inputs = LossInputs(level, level, 255, [level], 1000, lambda: level, decoded, probabilities=probabilities)
        loss = Geco(GecoConfig(weight=0.5, compares=compares))(inputs)["loss_geco"]
        factor = 2 if probabilities else 1
        p, q = ((factor * features[:, :3]).softmax(1) for features in seen[-2:])
        p, q = p.double(), q.double()
        torch.testing.assert_close(
            loss.double(), 0.5 * (p * q).sqrt().sum(1).arccos().square().mean(), rtol=1e-3, atol=0
        )
        assert torch.autograd.grad(loss, level)[0].any()
    assert Geco(GecoConfig())(LossInputs(level, level, 255, [level], 999, lambda: level))["loss_geco"] == 0
    assert len(seen) == 4


def test_a_style_changes_means_and_deviations_and_nothing_else():
    images = torch.randn(2, 3, 16, 16, generator=GENERATOR) + 1
    torch.manual_seed(0)
    changed = StyleConsistency(StyleConsistencyConfig()).restyle(images)
    plain = [(x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True) for x in (images, changed)]
    torch.testing.assert_close(plain[1], plain[0], atol=1e-4, rtol=0)
    assert not torch.allclose(changed.mean((2, 3)), images.mean((2, 3)), atol=0.05)
    assert not torch.allclose(changed.std((2, 3)), images.std((2, 3)), atol=0.05)


def test_a_style_is_the_drawn_shift_in_deviations_and_the_drawn_stretch():
    images = torch.randn(2, 3, 16, 16, generator=GENERATOR) * torch.tensor([0.5, 2.0, 4.0])[:, None, None] + 1
    torch.manual_seed(0)
    shift, stretch = (0.4 * torch.randn(2, 3) for _ in range(2))
    torch.manual_seed(0)
    changed = StyleConsistency(StyleConsistencyConfig(strength=0.4)).restyle(images)
    mean, std = images.mean((2, 3)), images.std((2, 3))
    torch.testing.assert_close(changed.mean((2, 3)), mean + shift * std)
    torch.testing.assert_close(changed.std((2, 3)), stretch.exp() * std)


def test_style_consistency_is_one_minus_the_cosine_of_each_token_by_hand():
    """Two tokens of two channels: (1, 0) and (0, 3) at a right angle, (3, 4) and (8, 6) with a cosine of 24/25."""
    own, other = torch.tensor([[[[1.0, 3.0]], [[0.0, 4.0]]]]), torch.tensor([[[[0.0, 8.0]], [[3.0, 6.0]]]])
    inputs = LossInputs(torch.randn(1, 3, 8, 8), own, 255, [own], 0, lambda: own, encoded=lambda images: [other])
    found = StyleConsistency(StyleConsistencyConfig(weight=2.0))(inputs)
    assert float(found["loss_style_consistency"]) == pytest.approx(2.0 * (1 + 1 / 25) / 2)


def test_overlap_by_hand_and_its_bounds():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert float(overlap(x, y)) == pytest.approx(9 / (5 * 9))
    assert float(overlap(y, 7 * y)) == pytest.approx(1) and float(overlap(y, torch.tensor([[0.0, 1.0]]))) == 0


@pytest.mark.parametrize("loss", ["geco", "geco_released", "style_consistency", "orthogonality"])
def test_a_run_has_the_loss_beside_the_decoders(make_config, loss):
    start = [f"losses.{loss}.start=0"] if loss.startswith("geco") else []
    config = make_config(*TINY, f"losses={loss}", *start)
    segmenter = build_model(config, None).segmenter
    name = f"loss_{config.losses[loss].kind}"
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    losses = segmenter(images, torch.zeros(2, 64, 64, dtype=torch.long))
    assert set(losses) == {"loss_ce", name} and torch.isfinite(losses[name])
    losses[name].backward()
    assert any(p.grad is not None and p.grad.any() for n, p in segmenter.named_parameters() if "lora" in n)
    assert identity_fields(config)["losses"][loss]["kind"] == config.losses[loss].kind


def test_orthogonal_rows_have_no_overlap(make_config):
    config = make_config(*TINY)
    model = build_model(config, None).segmenter
    inputs = LossInputs(torch.zeros(1), torch.zeros(1), 255, [], 0, lambda: torch.zeros(1), backbone=model.backbone)
    between = Orthogonality(OrthogonalityConfig(weight=0.0, between=1.0))(inputs)
    assert between["loss_orthogonality"].item() == 0  # main and sub start at other columns of the identity
    kept = Orthogonality(OrthogonalityConfig(weight=1.0, between=0.0))(inputs)
    assert 0 < kept["loss_orthogonality"].item() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["losses=geco"], r"losses\.geco\.start=1000: must be below trainer.max_steps=4"),
        (
            ["losses=geco", "losses.geco.directions=9"],
            r"losses\.geco\.directions=9: must lie between 1 and neighbours=8",
        ),
        (["losses=geco", "losses.geco.tokens=8"], r"losses\.geco\.tokens=8: must be above neighbours=8"),
        (["losses=orthogonality", "adapter=vpt"], r"needs an adapter of the low-rank family"),
        (["losses=style_consistency", "adapter=frozen"], r"nothing to change in a frozen backbone"),
    ],
)
def test_what_a_loss_cannot_do_is_refused(make_config, options, message):
    plain = [option for option in TINY if not option.startswith("adapter.")]
    with pytest.raises(ConfigError, match=message):
        make_config(*plain, *options)
