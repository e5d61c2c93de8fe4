"""The published photometric distortion (SSD's, as mmsegmentation runs it), bit for bit, through look-up tables."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Photometric:
    """Brightness, contrast, saturation and hue, each with its own coin of probability ``photometric``."""

    brightness: float = 32.0
    """largest shift, in grey levels"""
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18
    """largest turn, of OpenCV's 180"""
    photometric: float = 0.5
    hue_half_open: bool = False
    """turns from -hue to hue - 1: NumPy's randint, which mmsegmentation draws them with, leaves the upper end out"""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Distort a uint8 RGB image (H, W, 3); contrast comes before or after the colours, by a coin."""
        coins = rng.random(5) < (self.photometric, 0.5, self.photometric, self.photometric, self.photometric)
        brighter, contrast_first, contrasted, saturated, turned = coins.tolist()
        delta = rng.uniform(-self.brightness, self.brightness)
        factor, colour = rng.uniform(*self.contrast), rng.uniform(*self.saturation)
        turn = int(rng.integers(-self.hue, max(1, self.hue) if self.hue_half_open else self.hue + 1))
        if brighter:
            image = scaled(image, 1.0, delta)
        if contrasted and contrast_first:
            image = scaled(image, factor, 0.0)
        if saturated:
            image = resaturated(image, colour)
        if turned:
            image = hue_turned(image, turn)
        if contrasted and not contrast_first:
            image = scaled(image, factor, 0.0)
        return image


def scaled(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """``image * factor + offset``, clipped to 0..255, as uint8; one table look-up, since there are 256 values."""
    scaled: np.ndarray = cv2.LUT(image, _levels(factor, offset))
    return scaled


def resaturated(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the saturation of an RGB image, through 8-bit HSV."""
    levels = np.arange(256, dtype=np.uint8)
    return _through_hsv(image, np.stack([levels, _levels(factor, 0.0), levels], axis=-1))


def hue_turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Turn the hue of an RGB image by ``turn`` of 180, through 8-bit HSV."""
    levels = np.arange(256)
    return _through_hsv(image, np.stack([(levels + turn) % 180, levels, levels], axis=-1).astype(np.uint8))


def _levels(factor: float, offset: float) -> np.ndarray:
    """Table (256,) of ``value * factor + offset``."""
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset), 0, 255)
    rounded: np.ndarray = table.astype(np.uint8)
    return rounded


def _through_hsv(image: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Look hue, saturation and value up in the columns of ``tables`` (256, 3)."""
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables[None])
    back: np.ndarray = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return back
