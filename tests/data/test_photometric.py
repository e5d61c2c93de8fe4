from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest

from recyclelora.data.photometric import Photometric, hue_turned, resaturated, scaled

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)


class Draws:
    """Stands for a generator: the coins and values that a test has chosen."""

    def __init__(self, coins, delta=0.0, factor=1.0, colour=1.0, turn=0):
        self.coins, self.values, self.turn = coins, [delta, factor, colour], turn

    def random(self, count):
        assert count == len(self.coins)
        return np.where(self.coins, 0.0, 0.99)

    def uniform(self, low, high):
        return self.values.pop(0)

    def integers(self, low, high):
        return self.turn


BRIGHTNESS, FIRST, CONTRAST, SATURATION, HUE = range(5)


def draws(*coins, **values):
    return Draws([index in coins for index in range(5)], **values)


def test_brightness_and_contrast_by_hand():
    values = np.array([[[0, 100, 250]]], np.uint8)
    assert scaled(values, 1.0, 10.0).tolist() == [[[10, 110, 255]]]
    assert scaled(values, 1.0, -10.7).tolist() == [[[0, 89, 239]]]
    assert scaled(values, 0.5, 0.0).tolist() == [[[0, 50, 125]]]


def test_hue_by_hand():
    red = np.array([[[200, 20, 20]]], np.uint8)
    assert hue_turned(red, 60)[0, 0].tolist() == pytest.approx([20, 200, 20], abs=2)
    assert hue_turned(red, -60)[0, 0].tolist() == pytest.approx([20, 20, 200], abs=2)
    np.testing.assert_array_equal(hue_turned(red, 175), hue_turned(red, -5))


def test_saturation_by_hand():
    red = np.array([[[200, 20, 20]]], np.uint8)
    grey = resaturated(red, 0.0)[0, 0]
    assert grey.max() - grey.min() <= 1 and grey.max() == 200
    half = resaturated(red, 0.5)[0, 0] / 255
    assert colorsys.rgb_to_hsv(*half)[1] == pytest.approx(0.45, abs=0.02)


def test_tables_equal_the_arithmetic_they_stand_for():
    """float32 products, clipped and cut to integers, on every pixel: as mmsegmentation computes them."""

    def convert(values, alpha=1, beta=0):
        return np.clip(values.astype(np.float32) * np.float32(alpha) + np.float32(beta), 0, 255).astype(np.uint8)

    np.testing.assert_array_equal(scaled(PICTURE, 1.0, -17.3), convert(PICTURE, beta=-17.3))
    np.testing.assert_array_equal(scaled(PICTURE, 1.37, 0.0), convert(PICTURE, alpha=1.37))
    hsv = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = convert(hsv[..., 1], alpha=1.21)
    np.testing.assert_array_equal(resaturated(PICTURE, 1.21), cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    hsv = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) - 11) % 180
    np.testing.assert_array_equal(hue_turned(PICTURE, -11), cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def test_order_of_the_steps():
    distort = Photometric()
    values = {"delta": 20.0, "factor": 1.4, "colour": 0.7, "turn": 9}
    everything = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
    brighter = scaled(PICTURE, 1.0, 20.0)
    colours_last = hue_turned(resaturated(scaled(brighter, 1.4, 0.0), 0.7), 9)
    colours_first = scaled(hue_turned(resaturated(brighter, 0.7), 9), 1.4, 0.0)
    np.testing.assert_array_equal(distort(PICTURE, draws(*everything, FIRST, **values)), colours_last)
    np.testing.assert_array_equal(distort(PICTURE, draws(*everything, **values)), colours_first)
    assert not np.array_equal(colours_first, colours_last)


@pytest.mark.parametrize(
    ("coin", "expected"),
    [
        (BRIGHTNESS, scaled(PICTURE, 1.0, 20.0)),
        (CONTRAST, scaled(PICTURE, 1.4, 0.0)),
        (SATURATION, resaturated(PICTURE, 0.7)),
        (HUE, hue_turned(PICTURE, 9)),
        (FIRST, PICTURE),
    ],
)
def test_each_step_has_its_own_coin(coin: int, expected: np.ndarray):
    drawn = draws(coin, delta=20.0, factor=1.4, colour=0.7, turn=9)
    np.testing.assert_array_equal(Photometric()(PICTURE, drawn), expected)


def test_half_of_the_images_keep_their_brightness_and_draws_stay_in_their_ranges():
    level = np.full((1, 1, 3), 128, np.uint8)
    only_brightness = Photometric(contrast=(1, 1), saturation=(1, 1), hue=0)
    shifts = np.array([int(only_brightness(level, np.random.default_rng(s))[0, 0, 0]) - 128 for s in range(600)])
    assert 0.4 < (shifts == 0).mean() < 0.6
    assert -33 <= shifts.min() < -28 and 28 < shifts.max() <= 32
    assert Photometric().hue == 18 and Photometric().contrast == Photometric().saturation == (0.5, 1.5)


class Bounds(Draws):
    """Keeps between which integers a turn was drawn, the upper one left out as NumPy's randint does."""

    def integers(self, low, high):
        self.bounds = (low, high)
        return low


@pytest.mark.parametrize(
    ("distort", "bounds"),
    [
        (Photometric(hue_half_open=True), (-18, 18)),  # mmsegmentation: random.randint(-hue_delta, hue_delta)
        (Photometric(), (-18, 19)),
        (Photometric(hue=36, hue_half_open=True), (-36, 36)),
        (Photometric(hue=0, hue_half_open=True), (0, 1)),
    ],
)
def test_between_which_turns_the_hue_is_drawn(distort: Photometric, bounds: tuple[int, int]):
    drawn = Bounds([index == HUE for index in range(5)])
    distort(PICTURE, drawn)
    assert drawn.bounds == bounds
