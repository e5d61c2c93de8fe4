"""The published training augmentation, step by step, on numpy arrays.

Order: short edge -> random crop without one dominating class -> pad -> flip -> photometric distortion. Every step
draws from the generator it is given, so that a sample depends on its own seed and on nothing else. Normalisation is
the model's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recyclelora.data.labels import IGNORE

Pair = tuple[np.ndarray, np.ndarray]
"""uint8 RGB (H, W, 3) and uint8 train ids (H, W)."""


@dataclass(frozen=True)
class Augmentation:
    """The chain's numbers; sizes in pixels, ``hue`` in OpenCV's 180 degrees."""

    crop: tuple[int, int]
    short_edges: tuple[int, ...]
    max_long_edge: int = 2048
    max_class_ratio: float = 0.75
    max_redraws: int = 10
    flip: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18
    photometric: float = 0.5

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> Pair:
        """Augment one sample to the crop's size."""
        size = resized_shape(image.shape[:2], int(rng.choice(self.short_edges)), self.max_long_edge)
        image, label = resize(image, label, size)
        image, label = self.random_crop(image, label, rng)
        image, label = pad(image, label, self.crop)
        if rng.random() < self.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        return self.distort(np.ascontiguousarray(image), rng), np.ascontiguousarray(label)

    def random_crop(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> Pair:
        """Cut the crop's size; redraw while one class covers too much of the labelled pixels."""
        window = self.crop_window(label.shape, rng)
        for _ in range(self.max_redraws):
            if dominating_share(label[window]) < self.max_class_ratio:
                break
            window = self.crop_window(label.shape, rng)
        return image[window], label[window]

    def crop_window(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, slice]:
        """A uniformly drawn window of at most the crop's size inside ``size`` (H, W)."""
        top = int(rng.integers(0, max(size[0] - self.crop[0], 0) + 1))
        left = int(rng.integers(0, max(size[1] - self.crop[1], 0) + 1))
        return slice(top, top + self.crop[0]), slice(left, left + self.crop[1])

    def distort(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Brightness, contrast (before or after the colours), saturation and hue, each with its own coin."""
        coins = rng.random(5) < (self.photometric, 0.5, self.photometric, self.photometric, self.photometric)
        brighter, contrast_first, contrasted, saturated, hued = coins.tolist()
        delta = rng.uniform(-self.brightness, self.brightness)
        factor, colour = rng.uniform(*self.contrast), rng.uniform(*self.saturation)
        turn = int(rng.integers(-self.hue, self.hue + 1))
        if brighter:
            image = scaled(image, 1.0, delta)
        if contrasted and contrast_first:
            image = scaled(image, factor, 0.0)
        if saturated or hued:
            image = recoloured(image, colour if saturated else 1.0, turn if hued else 0)
        if contrasted and not contrast_first:
            image = scaled(image, factor, 0.0)
        return image


def resized_shape(size: tuple[int, ...], short_edge: int, max_long_edge: int) -> tuple[int, int]:
    """(H, W) scaled so that the short edge gets ``short_edge``, unless the long edge would pass ``max_long_edge``."""
    height, width = size[:2]
    scale = min(short_edge / min(height, width), max_long_edge / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(image: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> Pair:
    """Image bilinear, label nearest, to ``size`` (H, W)."""
    if size == image.shape[:2]:
        return image, label
    shape = size[::-1]
    return cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR), cv2.resize(
        label, shape, interpolation=cv2.INTER_NEAREST
    )


def dominating_share(label: np.ndarray) -> float:
    """Share of the most frequent class among the labelled pixels; 1 where nothing is labelled."""
    counts = np.bincount(label.ravel(), minlength=256)[:IGNORE]
    total = int(counts.sum())
    return float(counts.max() / total) if total else 1.0


def pad(image: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> Pair:
    """Pad at the right and bottom to at least ``size`` (H, W): image 0, label 255."""
    bottom, right = max(size[0] - label.shape[0], 0), max(size[1] - label.shape[1], 0)
    if not bottom and not right:
        return image, label
    edges = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return cv2.copyMakeBorder(image, *edges, value=(0, 0, 0)), cv2.copyMakeBorder(label, *edges, value=IGNORE)


def scaled(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    """``image * factor + offset``, clipped to 0..255, as uint8; one table look-up, since there are 256 values."""
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset), 0, 255)
    return cv2.LUT(image, table.astype(np.uint8))


def recoloured(image: np.ndarray, saturation: float, hue: int) -> np.ndarray:
    """Scale the saturation and turn the hue (of 180) of an RGB image."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    tables = np.stack([(levels + hue) % 180, np.clip(levels * saturation, 0, 255), levels], axis=-1)
    return cv2.cvtColor(cv2.LUT(hsv, tables.astype(np.uint8)[None]), cv2.COLOR_HSV2RGB)
