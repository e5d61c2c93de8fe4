"""Augmentations beyond the published ones; every one is off by default.

They work on the finished crop: first what borrows from another sample, then, after the photometric distortion,
corruption. They draw from a generator of their own, so that the published draws are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recyclelora.data.light_corruption import KINDS, corrupted
from recyclelora.data.mixing import jittered_style, mixed_classes, mixed_fourier, mixed_style
from recyclelora.data.transforms import Pair


@dataclass(frozen=True)
class Extras:
    """Probabilities of each, and how far they go."""

    style_jitter: float = 0.0
    """random mean and deviation of each channel"""
    style_strength: float = 0.3
    style_mix: float = 0.0
    """mean and deviation of each channel moved towards another sample's by a uniform share"""
    fourier: float = 0.0
    """low-frequency amplitudes moved towards another sample's by a uniform share"""
    fourier_beta: float = 0.01
    class_mix: float = 0.0
    """half of another sample's classes pasted in"""
    corruption: float = 0.0
    corruption_kinds: tuple[str, ...] = KINDS

    @property
    def active(self) -> bool:
        """Whether anything can happen at all."""
        return max(self.style_jitter, self.style_mix, self.fourier, self.class_mix, self.corruption) > 0

    def mixed(self, sample: Pair, other: Callable[[], Pair], rng: np.random.Generator) -> Pair:
        """Style, frequencies and objects of a sample; ``other`` is called once, and only where it is needed."""
        image, label = sample
        jitter, style, fourier, paste = rng.random(4) < (
            self.style_jitter, self.style_mix, self.fourier, self.class_mix,
        )  # fmt: skip
        foreign = other() if style or fourier or paste else None
        if jitter:
            image = jittered_style(image, self.style_strength, rng)
        if foreign is not None and style:
            image = mixed_style(image, foreign[0], rng.random())
        if foreign is not None and fourier:
            image = mixed_fourier(image, foreign[0], self.fourier_beta, rng.random())
        if foreign is not None and paste:
            image, label = mixed_classes(image, label, foreign, rng)
        return image, label

    def corrupted(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One kind of corruption at a random severity, or none."""
        if rng.random() >= self.corruption:
            return image
        return corrupted(image, str(rng.choice(self.corruption_kinds)), rng.random(), rng)
