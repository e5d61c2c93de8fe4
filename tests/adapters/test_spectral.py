"""SET and Causal-Tune against numpy and scipy, in both forms; the released ones were also run beside public code."""

import math

import numpy as np
import pytest
import scipy.fft
import timm
import torch
from torch import nn

from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.tokens.config import CausalTuneConfig, SetConfig
from recyclelora.adapters.tokens.rein import ReinTokens
from recyclelora.adapters.tokens.spectral import (
    SET,
    CausalTokens,
    CausalTune,
    ReleasedCausalTokens,
    ReleasedSetTokens,
    SetTokens,
    cosine_matrix,
    discarded,
)

from .models import tiny_vit

WIDTH = 8
FEATURES = torch.randn(3, 4, 6, WIDTH, generator=torch.Generator().manual_seed(0))
SMALL = {"num_tokens": 10, "token_rank": 4, "query_width": 16}
METHODS = {"set": SET(SetConfig(**SMALL)), "causal_tune": CausalTune(CausalTuneConfig(**SMALL))}
RELEASED = {
    "set": SET(SetConfig(**SMALL, form="released")),
    "causal_tune": CausalTune(CausalTuneConfig(**SMALL, form="released")),
}
both = pytest.mark.parametrize("name", METHODS)


def make(kind: type[ReinTokens], **changes: object) -> ReinTokens:
    settings = {"num_tokens": 5, "token_rank": 3, "patch_size": 16, "scale": 0.5, "query_width": 4, "seed": 0}
    return kind(2, WIDTH, **{**settings, **changes})


def attended(f: np.ndarray, tokens: torch.Tensor, inner: nn.Linear, outer: nn.Linear, normalise: bool) -> np.ndarray:
    """Rein's W_f (a[1:] (W_T T[1:] + b_T) + f) + b_f in float64, of f (..., c)."""
    t, w_t, b_t, w_f, b_f = (
        x.detach().double().numpy() for x in (tokens, inner.weight, inner.bias, outer.weight, outer.bias)
    )
    products = f @ t.T
    if normalise:
        products = (products - products.mean(-1, keepdims=True)) / np.sqrt(products.var(-1, keepdims=True) + 1e-5)
    a = np.exp(products / np.sqrt(WIDTH))
    a /= a.sum(-1, keepdims=True)
    return (a[..., 1:] @ (t[1:] @ w_t.T + b_t) + f) @ w_f.T + b_f


def first_set(tokens: ReinTokens, layer: int, f: np.ndarray) -> np.ndarray:
    product = tokens.token_a[layer] @ tokens.token_b[layer]
    return attended(f, product, tokens.token_to_feature, tokens.feature_to_feature, False)


def second_set(tokens: SetTokens, layer: int, f: np.ndarray) -> np.ndarray:
    return attended(f, tokens.amplitude_tokens[layer], tokens.amplitude_to_feature, tokens.amplitude_to_amplitude, True)


def share_taken(u: int, v: int, height: int, width: int) -> float:
    """m of Causal-Tune at one frequency, case by case."""
    radius, side = max(u, v), min(height, width)
    low, high = math.floor(0.1 * side), math.floor(0.7 * side)
    if radius <= low:
        return 1 - 0.95 * radius / low if low else 1.0
    if radius <= high:
        return 0.01
    return 0.3 * (radius - high) / (side - high) if radius <= side else 0.5


def shares_kept(height: int, width: int) -> np.ndarray:
    return np.array([[1 - share_taken(u, v, height, width) for v in range(width)] for u in range(height)])


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.detach().double().numpy(), expected, atol=2e-6)


def test_set_by_the_formula():
    tokens, f = make(SetTokens), FEATURES.double().numpy()
    spectrum = np.fft.rfft2(f, axes=(1, 2))
    phase = np.where(np.abs(spectrum.imag) < 1e-12, np.where(spectrum.real < 0, np.pi, 0.0), np.angle(spectrum))
    refined = second_set(tokens, 1, np.abs(spectrum)) * np.exp(1j * first_set(tokens, 1, phase))
    close(tokens.refine(1, FEATURES), f + 0.5 * np.fft.irfft2(refined, s=(4, 6), axes=(1, 2)))


def test_causal_tune_by_the_formula():
    tokens, f = make(CausalTokens), FEATURES.double().numpy()
    refined = first_set(tokens, 1, shares_kept(4, 6)[..., None] * scipy.fft.dctn(f, axes=(1, 2), norm="ortho"))
    close(tokens.refine(1, FEATURES), f + 0.5 * scipy.fft.idctn(refined, axes=(1, 2), norm="ortho"))


def test_the_released_set_by_numpy():
    tokens, f = make(ReleasedSetTokens), FEATURES.double().numpy()
    x = f.reshape(3, 24, WIDTH).transpose(1, 0, 2)
    spectrum = np.fft.fft2(x)
    power = np.abs(spectrum) ** 2
    amplitude = np.sqrt(np.where(power < 1e-5, 1e-5, power))
    phase = np.arctan2(spectrum.imag, np.where(np.abs(spectrum.real) < 1e-5, 1e-5, spectrum.real))
    refined = second_set(tokens, 1, amplitude) * np.exp(1j * first_set(tokens, 1, phase))
    half = refined[..., : WIDTH // 2 + 1] / np.sqrt(2 * WIDTH)
    delta = np.fft.irfft2(half, s=(3, WIDTH), norm="ortho")
    # The imaginary part of what should be real is rounding, and numpy's is another than torch's: these phases may be
    # pi or -pi. For these features no such phase is there.
    close(tokens.refine(1, FEATURES), f + 0.5 * delta.transpose(1, 0, 2).reshape(f.shape))


def test_the_released_causal_tune_by_scipy():
    tokens, f = make(ReleasedCausalTokens), FEATURES.double().numpy()
    mixed = f.reshape(3, 24, WIDTH).transpose(1, 0, 2).reshape(3, WIDTH, 4, 6)
    spectrum = scipy.fft.dct(scipy.fft.dct(mixed, axis=-2, norm="ortho"), axis=-1, norm="ortho")
    kept = shares_kept(4, 6) * spectrum
    refined = first_set(tokens, 1, kept.reshape(24, 3, WIDTH)).reshape(mixed.shape)
    delta = np.clip(np.fft.ifft2(refined, norm="ortho").real, 0, 255)
    close(tokens.refine(1, FEATURES), f + 0.5 * delta.reshape(24, 3, WIDTH).transpose(1, 0, 2).reshape(f.shape))


def test_shares_that_causal_tune_discards_by_hand():
    square = discarded(32, 32, torch.device("cpu"))  # 0.1 n -> 3, 0.7 n -> 22
    by_hand = {0: 1.0, 1: 1 - 0.95 / 3, 3: 0.05, 4: 0.01, 22: 0.01, 23: 0.03, 31: 0.27}
    for radius, share in by_hand.items():
        assert square[radius, 0] == square[0, radius] == square[radius, radius] == pytest.approx(share)
    wide = discarded(10, 30, torch.device("cpu"))  # 1, 7
    assert wide[0, 10] == pytest.approx(0.3) and (wide[:, 11:] == 0.5).all()
    assert discarded(4, 4, torch.device("cpu"))[0, 0] == 1.0  # the mean goes altogether
    for size in ((4, 4), (10, 30), (32, 32), (37, 50), (64, 33)):
        np.testing.assert_allclose(1 - discarded(*size, torch.device("cpu")).numpy(), shares_kept(*size), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5, 37])
def test_cosines_are_those_of_scipy_and_orthonormal(size):
    matrix = cosine_matrix(size, FEATURES)
    np.testing.assert_allclose(matrix.numpy(), scipy.fft.dct(np.eye(size), axis=0, norm="ortho"), atol=1e-7)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size))


def test_layers_that_pass_everything_on_give_back_the_features():
    """Then S^-1(|S| exp(i arg S)) = f: f becomes (1 + g) f, also where a spectrum has zeros and negative means."""
    tokens = make(SetTokens)
    for layer in (tokens.token_to_feature, tokens.amplitude_to_feature):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for layer in (tokens.feature_to_feature, tokens.amplitude_to_amplitude):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    for features in (FEATURES, FEATURES[:, :3, :5], -torch.ones(1, 4, 4, WIDTH)):
        torch.testing.assert_close(tokens.refine(0, features), 1.5 * features)


@pytest.mark.parametrize("kind", [SetTokens, ReleasedSetTokens, CausalTokens, ReleasedCausalTokens])
def test_gradients_are_exact_and_finite_at_an_empty_spectrum(kind):
    tokens = make(kind).double()
    x = FEATURES[:2, :3, :4].double().requires_grad_()
    if kind is ReleasedCausalTokens:  # stops gradients
        (tokens.refine(0, x) ** 2).sum().backward()
        assert torch.equal(x.grad, (2 * tokens.refine(0, x)).detach())
    else:
        assert torch.autograd.gradcheck(lambda x: tokens.refine(0, x), x)
    assert torch.autograd.gradcheck(lambda _: tokens.refine(0, x.detach()), tokens.token_a)
    for constant in (torch.zeros(1, 4, 4, WIDTH), torch.ones(1, 4, 4, WIDTH)):
        tokens, x = make(kind), constant.requires_grad_()
        tokens.refine(0, x).sum().backward()
        gradients = [x.grad, *(p.grad for p in tokens.parameters() if p.grad is not None)]
        assert all(gradient.isfinite().all() for gradient in gradients)


@both
def test_golden_counts_on_dinov2_large(name):
    # as Rein publishes, with and without its link to queries, and SET's second set of tokens and layers
    rein, alone, more = 2_990_081, 2_530_817, 24 * 100 * 1024 + 2 * (1024 + 1) * 1024
    expected = {"set": (rein + more, alone + more), "causal_tune": (rein, alone)}[name]
    options = {"set": SetConfig(), "causal_tune": CausalTuneConfig()}[name]
    for has_queries, count in zip((True, False), expected, strict=True):
        with torch.device("meta"):
            model = timm.create_model("vit_large_patch14_dinov2", pretrained=False)
        adapted = options.method().apply(model, AdapterContext(has_queries=has_queries))
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
        assert sum(p.numel() for key, p in model.named_parameters() if key in adapted.rules) == count
        assert (adapted.query is not None) == has_queries
        spared = {key.partition(".")[2] for key, rule in adapted.rules.items() if rule.weight_decay == 0}
        assert spared == {"token_a", "token_b", "scale"} | ({"amplitude_tokens"} if name == "set" else set())


@both
def test_an_image_is_refined_by_itself_as_published_and_not_as_released(name):
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    for methods, alone in ((METHODS, True), (RELEASED, False)):
        model = tiny_vit(dynamic_img_size=True).eval()
        methods[name].apply(model, AdapterContext())
        getattr(model, name).scale.data.fill_(0.5)
        together, first = model.forward_features(images)[:1], model.forward_features(images[:1])
        assert torch.allclose(together, first, atol=1e-4) == alone


@both
@pytest.mark.parametrize("reg_tokens", [0, 4])
def test_patches_are_a_map_of_the_images_size_and_other_tokens_stay(name, reg_tokens):
    plain, refined = (tiny_vit(reg_tokens=reg_tokens, dynamic_img_size=True).eval() for _ in range(2))
    METHODS[name].apply(refined, AdapterContext())
    tokens = getattr(refined, name)
    tokens.scale.data.fill_(0.5)
    for height, width in ((32, 48), (64, 32)):
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        grid = (height // 16, width // 16)
        (before, prefix), (after, kept) = (
            model.forward_intermediates(
                images, indices=[0], norm=False, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
            )[0]
            for model in (plain, refined)
        )
        assert torch.equal(prefix, kept)
        torch.testing.assert_close(after, tokens.refine(0, before.unflatten(1, grid)).flatten(1, 2))


@both
def test_blocks_that_work_on_a_map_are_refined_as_it_is(name):
    """As SAM's, (B, h, w, c)."""

    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    model = nn.Module()
    model.embed_dim, model.blocks = WIDTH, nn.Sequential(Block())
    model.patch_embed = nn.Conv2d(3, WIDTH, 16, 16)
    model.patch_embed.patch_size = (16, 16)
    METHODS[name].apply(model, AdapterContext())
    tokens = getattr(model, name)
    tokens.scale.data.fill_(0.5)
    assert torch.equal(model.blocks(FEATURES), tokens.refine(0, FEATURES + 1))


@both
def test_a_model_without_a_map_is_refused_and_left_alone(name):
    model = nn.Module()
    model.blocks = tiny_vit().blocks
    with pytest.raises(ValueError, match="needs a map of patches"):
        METHODS[name].apply(model, AdapterContext())
    assert all(p.requires_grad for p in model.parameters()) and not hasattr(model, name)
