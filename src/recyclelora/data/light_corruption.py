"""Light corruptions of training images: what cameras and codecs do to a picture."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from recyclelora.data.augment import LIGHT_CORRUPTIONS


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
