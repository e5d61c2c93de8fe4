"""Augmentations beyond the published ones; every one is off by default.

They work on the finished crop: first what borrows from another sample, then, after the photometric distortion,
corruption. They draw from a generator of their own, so that the published draws are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import simplejpeg

from recyclelora.data.augment import LIGHT_CORRUPTIONS, AugmentConfig
from recyclelora.data.mixing import jittered_style, mixed_classes, mixed_fourier, mixed_style
from recyclelora.data.transforms import Pair


@dataclass(frozen=True)
class ExtraAugmentation:
    """Those of ``data.augment`` that are not published; another sample's share, where it has one, is uniform."""

    options: AugmentConfig = field(default_factory=AugmentConfig)

    @property
    def active(self) -> bool:
        """Whether anything can happen at all."""
        o = self.options
        return max(o.style_jitter, o.style_mix, o.fourier, o.class_mix, o.corruption) > 0

    def mixed(self, sample: Pair, other: Callable[[], Pair], rng: np.random.Generator) -> Pair:
        """Style, frequencies and objects of a sample; ``other`` is called once, and only where it is needed."""
        (image, label), o = sample, self.options
        jitter, style, fourier, paste = rng.random(4) < (o.style_jitter, o.style_mix, o.fourier, o.class_mix)
        foreign = other() if style or fourier or paste else None
        if jitter:
            image = jittered_style(image, o.style_strength, rng)
        if foreign is not None and style:
            image = mixed_style(image, foreign[0], rng.random())
        if foreign is not None and fourier:
            image = mixed_fourier(image, foreign[0], o.fourier_beta, rng.random())
        if foreign is not None and paste:
            image, label = mixed_classes(image, label, foreign, rng)
        return image, label

    def corrupted(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One kind of corruption at a random severity, or none."""
        if rng.random() >= self.options.corruption:
            return image
        return corrupted(image, str(rng.choice(self.options.corruption_kinds)), rng.random(), rng)


def corrupted(image: np.ndarray, kind: str, severity: float, rng: np.random.Generator) -> np.ndarray:
    """One corruption of a uint8 RGB image (H, W, 3); ``severity`` from 0, hardly visible, to 1, plain to see.

    ``blur`` is Gaussian with sigma 0.5 to 2.5 pixels, ``noise`` Gaussian with sigma 2 to 20 levels, ``jpeg`` is stored
    with quality 80 down to 20.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "blur":
        blurred: np.ndarray = cv2.GaussianBlur(image, (0, 0), 0.5 + 2 * severity)
        return blurred
    if kind == "noise":
        noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(2 + 18 * severity)
        noisy: np.ndarray = np.rint(np.clip(image + noise, 0, 255)).astype(np.uint8)
        return noisy
    if kind == "jpeg":
        stored = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=round(80 - 60 * severity))
        pixels: np.ndarray = simplejpeg.decode_jpeg(stored)
        return pixels
    raise ValueError(f"unknown corruption {kind!r}; known: {', '.join(LIGHT_CORRUPTIONS)}")
