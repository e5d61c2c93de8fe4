from __future__ import annotations

import numpy as np
import pytest

from recyclelora.data.augment import LIGHT_CORRUPTIONS
from recyclelora.data.extra_augmentation import corrupted
from recyclelora.data.mixing import (
    jittered_style,
    mixed_classes,
    mixed_fourier,
    mixed_style,
    restyled,
)

RNG = np.random.default_rng(0)
IMAGE = np.clip(RNG.normal((90, 120, 150), (20, 15, 10), (48, 64, 3)), 0, 255).astype(np.uint8)
OTHER = np.clip(RNG.normal((140, 110, 80), (8, 25, 12), (48, 64, 3)), 0, 255).astype(np.uint8)


def statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, by numpy."""
    return image.mean((0, 1)), image.std((0, 1))


def test_restyled_has_the_statistics_it_was_given():
    mean, std = statistics(restyled(IMAGE, np.array([100.0, 120.0, 140.0]), np.array([12.0, 20.0, 6.0])))
    np.testing.assert_allclose(mean, [100, 120, 140], atol=0.5)
    np.testing.assert_allclose(std, [12, 20, 6], atol=0.5)


@pytest.mark.parametrize("contrast", [1.0, 0.08, 0.02])
def test_restyled_is_adains_formula_for_every_pixel(contrast: float):
    """Also where values leave 0 to 255; a deviation below one grey level counts as one."""
    image = np.rint(120 + contrast * (IMAGE - 120.0)).astype(np.uint8)
    (mean, std), new_mean, new_std = statistics(image), np.array([5.0, 128.0, 250.0]), np.array([30.0, 90.0, 40.0])
    expected = np.clip((image - mean) / np.maximum(std, 1) * new_std + new_mean, 0, 255)
    assert np.abs(restyled(image, new_mean, new_std) - expected).max() <= 0.5 + 1e-6


def test_style_mix_goes_from_one_image_to_the_other():
    np.testing.assert_array_equal(mixed_style(IMAGE, OTHER, 0.0), IMAGE)
    for share in (0.5, 1.0):
        for found, own, other in zip(
            statistics(mixed_style(IMAGE, OTHER, share)), statistics(IMAGE), statistics(OTHER), strict=True
        ):
            np.testing.assert_allclose(found, (1 - share) * own + share * other, atol=0.5)


def test_a_flat_channel_stays_flat():
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert np.unique(mixed_style(flat, OTHER, 1.0).reshape(-1, 3), axis=0).shape == (1, 3)


def test_style_jitter_grows_with_its_strength():
    np.testing.assert_array_equal(jittered_style(IMAGE, 0.0, np.random.default_rng(0)), IMAGE)
    shifts = []
    for strength in (0.1, 0.5, 1.0):
        jittered = [jittered_style(IMAGE, strength, np.random.default_rng(seed)) for seed in range(20)]
        shifts.append(np.mean([np.abs(statistics(image)[0] - (90, 120, 150)) for image in jittered]))
    assert shifts[0] < shifts[1] < shifts[2]


def test_style_jitter_moves_means_by_deviations_and_stretches_these_by_an_exponential():
    draws, (mean, std) = np.random.default_rng(3), statistics(IMAGE)
    shift, stretch = draws.standard_normal(3), draws.uniform(-1, 1, 3)
    found = statistics(jittered_style(IMAGE, 0.5, np.random.default_rng(3)))
    np.testing.assert_allclose(found[0], mean + 0.5 * shift * std, atol=0.5)
    np.testing.assert_allclose(found[1], std * np.exp(0.5 * stretch), atol=0.5)


@pytest.mark.parametrize(
    "image",
    [IMAGE, np.zeros_like(IMAGE), 255 * (IMAGE > (90, 120, 150)).astype(np.uint8)],
    ids=["noise", "black", "glaring"],
)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("beta", [0.03, 0.1])
def test_fourier_mix_equals_the_whole_transform(image: np.ndarray, share: float, beta: float):
    """FDA as it is written: swap a square of the shifted amplitude spectrum, keep the phase, transform back."""
    own, foreign = (np.fft.fftshift(np.fft.fft2(i, axes=(0, 1)), axes=(0, 1)) for i in (image, OTHER))
    order, (y, x) = int(beta * 48), (24, 32)
    square = slice(y - order, y + order + 1), slice(x - order, x + order + 1)
    amplitude = np.abs(own)
    amplitude[square] = (1 - share) * amplitude[square] + share * np.abs(foreign)[square]
    spectrum = np.fft.ifftshift(amplitude * np.exp(1j * np.angle(own)), axes=(0, 1))
    expected = np.clip(np.fft.ifft2(spectrum, axes=(0, 1)).real, 0, 255)
    mixed = mixed_fourier(image, OTHER, beta, share)
    assert np.abs(mixed - expected).max() <= 0.51
    if share == 0.0:
        np.testing.assert_array_equal(mixed, image)


def test_fourier_mix_takes_the_other_mean_and_keeps_details():
    mixed = mixed_fourier(IMAGE, OTHER, 0.02, 1.0)  # order 0: only the mean
    np.testing.assert_allclose(mixed.mean((0, 1)), OTHER.mean((0, 1)), atol=0.5)
    np.testing.assert_allclose(mixed.std((0, 1)), IMAGE.std((0, 1)), atol=0.5)


def test_fourier_mix_of_black_images():
    black = np.zeros((48, 64, 3), np.uint8)
    np.testing.assert_array_equal(mixed_fourier(black, black, 0.05, 1.0), black)


def test_class_mix_pastes_half_of_the_classes_with_their_pixels():
    label = np.zeros((48, 64), np.uint8)
    other = np.repeat([1, 2, 3, 4, 5, 255], 8)[:, None].repeat(64, 1).astype(np.uint8)
    seen = set()
    for seed in range(40):
        image, mask = mixed_classes(IMAGE, label, (OTHER, other), np.random.default_rng(seed))
        pasted = set(np.unique(mask)) - {0}
        assert len(pasted) == 3 and 255 not in pasted  # half of five, rounded up
        from_other = np.isin(other, list(pasted))
        np.testing.assert_array_equal(mask, np.where(from_other, other, 0))
        np.testing.assert_array_equal(image, np.where(from_other[..., None], OTHER, IMAGE))
        seen |= pasted
    assert seen == {1, 2, 3, 4, 5}


def test_class_mix_with_nothing_labelled_changes_nothing():
    label = np.full((48, 64), 3, np.uint8)
    image, mask = mixed_classes(IMAGE, label, (OTHER, np.full_like(label, 255)), np.random.default_rng(0))
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(mask, label)


@pytest.mark.parametrize("kind", LIGHT_CORRUPTIONS)
def test_corruption_grows_with_its_severity(kind: str):
    errors = []
    for severity in (0.0, 0.5, 1.0):
        changed = corrupted(IMAGE, kind, severity, np.random.default_rng(0))
        assert changed.shape == IMAGE.shape and changed.dtype == np.uint8
        errors.append(np.abs(changed.astype(int) - IMAGE).mean())
    assert 0 < errors[0] < errors[1] < errors[2]


def test_jpeg_keeps_the_order_of_the_channels():
    red = np.full((16, 16, 3), (200, 30, 40), np.uint8)
    np.testing.assert_allclose(corrupted(red, "jpeg", 0.0, RNG).mean((0, 1)), (200, 30, 40), atol=4)


def test_unknown_corruption():
    with pytest.raises(ValueError, match="'fog'; known: blur, noise, jpeg"):
        corrupted(IMAGE, "fog", 0.5, RNG)


def test_class_mix_never_pastes_what_pads_the_other_crop():
    """Neither unlabelled pixels nor the mark of pixels outside the image count as a class."""
    label = np.zeros(IMAGE.shape[:2], np.uint8)
    other = np.full_like(label, 254)
    other[:2], other[2:4] = 7, 255
    for seed in range(8):
        _, mask = mixed_classes(IMAGE, label, (OTHER, other), np.random.default_rng(seed))
        assert set(np.unique(mask)) == {0, 7}
