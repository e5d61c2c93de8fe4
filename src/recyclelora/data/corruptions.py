"""Common corruptions of images, from their published definitions (Hendrycks and Dietterich, ICLR 2019: ImageNet-C).

Constants are the published ones for severities 1 to 5 in images of any size (Michaelis et al., 2019: Cityscapes-C).
Fourteen of the fifteen are here: ``frost`` blends photographs of frost, which cannot be computed. Masks are never
touched, as in Cityscapes-C, so that ``elastic_transform`` also measures how far it has moved the edges.

An image is corrupted by its name and a seed alone: the same for every worker, order and run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import cv2
import numpy as np

from recyclelora.system.errors import UserError

VERSION = 1
"""Part of the data's digest: another version of these functions gives other images."""

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
"""(float32 RGB in 0..1 (H, W, 3), severity 0 to 4, generator) -> RGB, clipped to 0..1 afterwards."""


def corrupt(image: np.ndarray, corruption: str, severity: int, *, name: str = "", seed: int = 0) -> np.ndarray:
    """Corrupt a uint8 RGB image (H, W, 3).

    Args:
        image: uint8 RGB
        corruption: one of :data:`CORRUPTIONS`
        severity: 1 to 5
        name: of the image; with ``seed`` it decides every random draw
        seed: for another draw of the same corruption

    Raises:
        UserError: unknown corruption or severity.
    """
    if corruption not in CORRUPTIONS:
        raise UserError(f"unknown corruption {corruption!r}; known: {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= 5:
        raise UserError(f"corruption severity {severity}: must lie between 1 and 5")
    key = hashlib.sha256(f"{corruption} {seed} {name}".encode()).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    unit = image.astype(np.float32) / 255
    corrupted: np.ndarray = np.clip(CORRUPTIONS[corruption](unit, severity - 1, rng), 0, 1) * 255
    return corrupted.astype(np.uint8, copy=False)


# --- noise ------------------------------------------------------------------------------------------------------------


def gaussian_noise(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Normal noise on every value."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    noise: np.ndarray = rng.standard_normal(image.shape, np.float32)
    return image + noise * np.float32(deviation)


def shot_noise(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise of so many photons at full brightness."""
    photons = (60, 25, 12, 5, 3)[level]
    return rng.poisson(image * photons).astype(np.float32) / photons


def impulse_noise(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper: a share of all values becomes 0 or 1, one as often as the other."""
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    draw = rng.random(image.shape, np.float32)
    return np.where(draw < amount / 2, np.float32(0), np.where(draw < amount, np.float32(1), image))


# --- blur -------------------------------------------------------------------------------------------------------------


def defocus_blur(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A disc as point spread, its edge softened by a Gaussian."""
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[level]
    reach = max(8, radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    size = 3 if radius <= 8 else 5
    return cv2.filter2D(image, -1, cv2.GaussianBlur(disc / disc.sum(), (size, size), softness))


def glass_blur(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian, then pixels shuffled within a few pixels, then the Gaussian again.

    The published code swaps pixel after pixel; here each pixel of an iteration is drawn from its neighbourhood at once,
    with the same reach and number of iterations.
    """
    deviation, reach, iterations = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[level]
    blurred = _gaussian(image, deviation)
    height, width = image.shape[:2]
    for _ in range(iterations):
        rows = np.arange(height)[:, None] + rng.integers(-reach, reach, (height, width))
        columns = np.arange(width) + rng.integers(-reach, reach, (height, width))
        blurred = blurred[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return _gaussian(blurred, deviation)


def motion_blur(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Half a Gaussian along a line of random direction."""
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    return _moved(image, radius, deviation, rng.uniform(-45, 45))


def zoom_blur(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the image and its enlargements about the centre."""
    last, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[level]
    factors = np.arange(1, last, step)
    total = image.copy()
    for factor in factors:
        total += _zoomed(image, factor)
    return total / (len(factors) + 1)


# --- weather ----------------------------------------------------------------------------------------------------------


def snow(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Flakes blown by the wind, twice, over a whitened image."""
    mean, deviation, zoom, threshold, radius, blur, share = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[level]  # fmt: skip
    flakes = _zoomed(rng.normal(mean, deviation, image.shape[:2]).astype(np.float32), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1).astype(np.float32)
    flakes = _moved(flakes, radius, blur, rng.uniform(-135, -45))[..., None]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    whitened = share * image + (1 - share) * np.maximum(image, grey * 1.5 + 0.5)
    return np.asarray(whitened + flakes + flakes[::-1, ::-1])


def fog(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Plasma-fractal clouds over the image."""
    density, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[level]
    brightest = image.max()
    clouds = plasma(image.shape[:2], decay, rng)[..., None]
    return np.asarray((image + density * clouds) * brightest / (brightest + density))


# --- digital ----------------------------------------------------------------------------------------------------------


def brightness(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """More value in hue, saturation and value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.1, 0.2, 0.3, 0.4, 0.5)[level], 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def contrast(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Closer to each channel's mean."""
    mean = image.mean((0, 1), keepdims=True)
    return np.asarray((image - mean) * np.float32((0.4, 0.3, 0.2, 0.1, 0.05)[level]) + mean)


def elastic_transform(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random displacements, with the lengths that Cityscapes-C gives them in images of any size."""
    from scipy.ndimage import gaussian_filter, map_coordinates  # no other corruption needs it

    strength = (12.5, 16.25, 21.25, 25, 30)[level]
    height, width = image.shape[:2]
    reach, smoothness = 0.005 * height, (0.01 * height, 0.01 * width)
    right, down = (
        gaussian_filter(rng.uniform(-reach, reach, (height, width)), smoothness, mode="reflect", truncate=3) * strength
        for _ in range(2)
    )
    rows, columns = np.mgrid[:height, :width]
    where = (rows + down, columns + right)
    return np.stack([map_coordinates(image[..., c], where, order=1, mode="reflect") for c in range(3)], axis=-1)


def pixelate(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Fewer pixels, shown as blocks."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    height, width = image.shape[:2]
    size = (max(1, int(width * share)), max(1, int(height * share)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def jpeg_compression(image: np.ndarray, level: int, rng: np.random.Generator) -> np.ndarray:
    """Through JPEG at a low quality."""
    quality = (25, 18, 15, 10, 7)[level]
    stored = np.round(image * 255).astype(np.uint8)[..., ::-1]
    _, data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.float32) / 255


# --- what they share --------------------------------------------------------------------------------------------------


def plasma(size: tuple[int, int], decay: float, rng: np.random.Generator) -> np.ndarray:
    """A plasma fractal (H, W) from 0 to 1 by the diamond-square algorithm on a torus.

    The wobble is divided by ``decay`` at each halving of the step, and points move by up to its square, as published.
    """
    side = 1 << (max(size) - 1).bit_length()
    field = np.zeros((side, side))
    step, wobble = side, 100.0
    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        square = corners + np.roll(corners, -1, 0)
        square = square + np.roll(square, -1, 1)
        field[half::step, half::step] = square / 4 + wobble**2 * rng.uniform(-1, 1, square.shape)
        centres = field[half::step, half::step]
        left = centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1)
        field[::step, half::step] = left / 4 + wobble**2 * rng.uniform(-1, 1, left.shape)
        top = centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0)
        field[half::step, ::step] = top / 4 + wobble**2 * rng.uniform(-1, 1, top.shape)
        step, wobble = half, wobble / decay
    field -= field.min()
    clouds: np.ndarray = (field / field.max())[: size[0], : size[1]].astype(np.float32)
    return clouds


def _gaussian(image: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian blur in the plane, its edges repeated, cut off at four deviations."""
    return cv2.GaussianBlur(image, (2 * int(4 * deviation + 0.5) + 1,) * 2, deviation, borderType=cv2.BORDER_REPLICATE)


def _moved(image: np.ndarray, radius: int, deviation: float, angle: float) -> np.ndarray:
    """Smear along a line at ``angle`` (degrees): weights exp(-k^2 / 2 deviation^2) of the pixels k = 0 .. 2 radius."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    reach = 2 * radius
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    rows = np.round(steps * np.sin(np.deg2rad(angle))).astype(int)
    columns = np.round(steps * np.cos(np.deg2rad(angle))).astype(int)
    np.add.at(kernel, (reach + rows, reach + columns), weights / weights.sum())
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)


def _zoomed(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle ``1 / factor`` of an image, bilinear at the whole image's size."""
    height, width = image.shape[:2]
    rows, columns = int(np.ceil(height / factor)), int(np.ceil(width / factor))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = np.ascontiguousarray(image[top : top + rows, left : left + columns])
    return cv2.resize(middle, (width, height), interpolation=cv2.INTER_LINEAR)


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, fog,
        brightness, contrast, elastic_transform, pixelate, jpeg_compression,
    )
}  # fmt: skip
"""Every corruption by its published name."""
