"""Images that borrow from another source image: its colours, its low frequencies, or its objects.

Pure functions on uint8 RGB (H, W, 3) and train ids (H, W) of one size; nothing is changed in place.
"""

from __future__ import annotations

import cv2
import numpy as np

from recyclelora.data.labels import IGNORE, PADDING


def channel_statistics(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, (3,) float64 each, in grey levels."""
    mean, std = cv2.meanStdDev(image)
    return mean[:, 0], std[:, 0]


def restyled(image: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Give every channel another mean and standard deviation, (3,) each (AdaIN, Huang & Belongie, 2017, eq. 8).

    One affine map a channel, so that a table of 256 levels says it all.
    """
    own_mean, own_std = channel_statistics(image)
    gain = std / np.maximum(own_std, 1.0)  # a channel without contrast has nothing to stretch
    levels = np.clip((np.arange(256)[:, None] - own_mean) * gain + mean, 0, 255)
    changed: np.ndarray = cv2.LUT(image, np.rint(levels).astype(np.uint8)[None])
    return changed


def jittered_style(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Random statistics: means move by ``strength`` standard deviations, deviations by a factor exp(``strength``)."""
    mean, std = channel_statistics(image)
    return restyled(
        image, mean + strength * std * rng.standard_normal(3), std * np.exp(strength * rng.uniform(-1, 1, 3))
    )


def mixed_style(image: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Statistics between the image's own (``share`` 0) and those of another image (``share`` 1)."""
    (mean, std), (other_mean, other_std) = channel_statistics(image), channel_statistics(other)
    return restyled(image, (1 - share) * mean + share * other_mean, (1 - share) * std + share * other_std)


def mixed_fourier(image: np.ndarray, other: np.ndarray, beta: float, share: float) -> np.ndarray:
    """Mix the low-frequency amplitudes of two images and keep the phase (FDA, Yang & Soatto, 2020, eq. 2-3).

    Args:
        image: the image to change.
        other: an image of the same size.
        beta: frequencies up to ``floor(beta * min(H, W))`` cycles along both axes are mixed.
        share: 0 keeps the image's amplitudes, 1 takes the other's.

    Only those frequencies are computed: as the transform is linear, what they change is added to the image.
    """
    height, width = image.shape[:2]
    order = int(beta * min(height, width))
    rows, columns = _waves(order, height), _waves(order, width)
    own, foreign = _low_frequencies(image, rows, columns), _low_frequencies(other, rows, columns)
    amplitude = np.abs(own)
    phase = np.where(amplitude > 0, own / np.maximum(amplitude, 1e-12), 1)
    change = share * (np.abs(foreign) - amplitude) * phase
    half = np.einsum("klc,lw->kwc", change, columns.conj()).reshape(len(rows), -1)
    back = _product(rows.real.T, half.real) + _product(rows.imag.T, half.imag)  # the real part of rows^H @ half
    mixed: np.ndarray = np.rint(np.clip(image + back.reshape(image.shape) / (height * width), 0, 255)).astype(np.uint8)
    return mixed


def _waves(order: int, length: int) -> np.ndarray:
    """Rows -order..order of the discrete Fourier matrix, (2 order + 1, length) complex64."""
    phases = np.outer(np.arange(-order, order + 1), np.arange(length)) / length
    waves: np.ndarray = np.exp(-2j * np.pi * phases).astype(np.complex64)
    return waves


def _low_frequencies(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Fourier coefficients (2 order + 1, 2 order + 1, 3) of an image around frequency zero."""
    flat = image.reshape(len(image), -1).astype(np.float32)
    half = _product(rows.real, flat) + 1j * _product(rows.imag, flat)
    half = half.reshape(len(rows), *image.shape[1:])
    found: np.ndarray = np.einsum("kwc,lw->klc", half, columns)
    return found


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b`` without BLAS, whose rounding may depend on its number of threads: samples must not."""
    product: np.ndarray = np.einsum("ij,jk->ik", np.ascontiguousarray(a), np.ascontiguousarray(b))
    return product


def mixed_classes(
    image: np.ndarray, label: np.ndarray, other: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste half of the classes of another sample, image and label (ClassMix, Olsson et al., 2021; DACS).

    An odd number of classes is rounded up. Pixels without a label are never pasted, nor is what pads a crop.
    """
    present = np.unique(other[1])
    present = present[~np.isin(present, (IGNORE, PADDING))]
    chosen = rng.permutation(present)[: (len(present) + 1) // 2]
    pasted = np.isin(np.arange(256), chosen)[other[1]]
    return np.where(pasted[..., None], other[0], image), np.where(pasted, other[1], label)
