"""The published training augmentation, step by step, on numpy arrays.

Order: short edge -> random crop without one dominating class -> pad -> flip -> photometric distortion. Every step
draws from the generator it is given, so that a sample depends on its own seed and on nothing else. Normalisation is
the model's, and so is the value of pixels that are padded behind it.

Only the crop is ever resized. Its label is exactly the crop of the resized label, also where the criterion looks at
it; its image is within one grey level of the crop of the resized image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from recyclelora.data.labels import IGNORE, PADDING
from recyclelora.data.photometric import Photometric

Pair = tuple[np.ndarray, np.ndarray]
"""uint8 RGB (H, W, 3) and uint8 train ids (H, W)."""

Window = tuple[slice, slice]
"""Rows and columns."""

WARP_FROM = 2.5
"""A resized image of more than so many times the crop's pixels costs more than one warp of the crop does."""


@dataclass(frozen=True)
class Wanted:
    """A crop should show at least ``pixels`` of a class."""

    train_id: int
    pixels: int


@dataclass(frozen=True)
class Augmentation:
    """The chain's numbers; sizes in pixels.

    Crops of images that are smaller than the crop are padded at the right and bottom: with ``padding="first"`` with
    black before flip and colours, with ``"last"`` behind everything. Such pixels have the label ``PADDING``, from which
    the model knows them; what is in the image there means nothing.
    """

    crop: tuple[int, int]
    short_edges: tuple[int, ...]
    max_long_edge: int = 2048
    max_class_ratio: float = 0.75
    max_redraws: int = 10
    flip: float = 0.5
    colours: Photometric = field(default_factory=Photometric)
    padding: str = "first"

    def __call__(self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> Pair:
        """Augment one sample to the crop's size."""
        image, label = self.geometry(image, label, rng)
        return self.colours(image, rng), label

    def geometry(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator, wanted: Wanted | None = None
    ) -> Pair:
        """All steps before the photometric one.

        A crop that does not show what is wanted is drawn again, short edge included, up to ``max_redraws`` times.
        """
        image, label = self.random_crop(image, label, rng, wanted)
        if self.padding == "first":
            image, label = pad(image, label, self.crop)
        if rng.random() < self.flip:
            image, label = cv2.flip(image, 1), cv2.flip(label, 1)
        if self.padding == "last":
            image, label = pad(image, label, self.crop, PADDING)
        return np.ascontiguousarray(image), np.ascontiguousarray(label)

    def random_crop(
        self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator, wanted: Wanted | None = None
    ) -> Pair:
        """Short edge and crop."""
        size, window, cut = self.draw_crop(label, rng)
        for _ in range(self.max_redraws if wanted else 0):
            if np.count_nonzero(cut == wanted.train_id) >= wanted.pixels:  # type: ignore[union-attr]
                break
            size, window, cut = self.draw_crop(label, rng)
        return resized_crop(image, size, window), cut

    def draw_crop(self, label: np.ndarray, rng: np.random.Generator) -> tuple[tuple[int, int], Window, np.ndarray]:
        """Draw the size (H, W) to resize to and the window to cut there; also returns the label in the window.

        The window is drawn again, up to ``max_redraws`` times, while one class covers too much of the labelled pixels.
        """
        size = resized_shape(label.shape, int(rng.choice(self.short_edges)), self.max_long_edge)
        rows, columns = nearest_indices(label.shape[0], size[0]), nearest_indices(label.shape[1], size[1])
        for draw in range(self.max_redraws + 1):
            window = self.crop_window(size, rng)
            cut = label[rows[window[0]]].take(columns[window[1]], axis=1)
            if draw == self.max_redraws or dominating_share(cut) < self.max_class_ratio:
                break
        return size, window, cut

    def crop_window(self, size: tuple[int, ...], rng: np.random.Generator) -> Window:
        """A uniformly drawn window of at most the crop's size inside ``size`` (H, W)."""
        top = int(rng.integers(0, max(size[0] - self.crop[0], 0) + 1))
        left = int(rng.integers(0, max(size[1] - self.crop[1], 0) + 1))
        return slice(top, min(top + self.crop[0], size[0])), slice(left, min(left + self.crop[1], size[1]))


def resized_shape(size: tuple[int, ...], short_edge: int, max_long_edge: int) -> tuple[int, int]:
    """(H, W) scaled so that the short edge gets ``short_edge``, unless the long edge would pass ``max_long_edge``."""
    height, width = size[:2]
    scale = min(short_edge / min(height, width), max_long_edge / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def nearest_indices(length: int, resized: int) -> np.ndarray:
    """Which of ``length`` rows OpenCV takes for each of ``resized`` ones, (resized,): it is asked to resize a ramp."""
    ramp = np.arange(length, dtype=np.float32)[None]
    indices: np.ndarray = cv2.resize(ramp, (resized, 1), interpolation=cv2.INTER_NEAREST)[0].astype(np.intp)
    return indices


def resized_crop(image: np.ndarray, size: tuple[int, int], window: Window) -> np.ndarray:
    """The window of the image resized to ``size`` (H, W), bilinear with aligned corners of pixels.

    A window that is much smaller than ``size`` is warped straight from the image, which differs by at most one level
    from resizing everything and cutting.
    """
    rows, columns = window
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if size == image.shape[:2]:
        return image[window]
    if size[0] * size[1] <= WARP_FROM * height * width:
        whole: np.ndarray = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        return whole[window]
    down, across = image.shape[0] / size[0], image.shape[1] / size[1]
    # centre of pixel x of the window lies at (x + left + 0.5) * across - 0.5 in the image
    matrix = np.array(
        [[across, 0, (columns.start + 0.5) * across - 0.5], [0, down, (rows.start + 0.5) * down - 0.5]], np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped: np.ndarray = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return warped


def dominating_share(label: np.ndarray) -> float:
    """Share of the most frequent class among the labelled pixels; 1 where nothing is labelled."""
    counts = class_counts(label)[:IGNORE]
    total = int(counts.sum())
    return float(counts.max() / total) if total else 1.0


def class_counts(label: np.ndarray) -> np.ndarray:
    """Pixels of every id, (256,) int64; exact below 2^24 pixels of one id, where OpenCV's float32 counts end."""
    if label.size >= 1 << 24:
        return np.bincount(label.ravel(), minlength=256)
    return cv2.calcHist([label], [0], None, [256], [0, 256]).ravel().astype(np.int64)


def pad(image: np.ndarray, label: np.ndarray, size: tuple[int, int], mark: int = IGNORE) -> Pair:
    """Pad at the right and bottom to at least ``size`` (H, W): image 0, label ``mark``."""
    bottom, right = max(size[0] - label.shape[0], 0), max(size[1] - label.shape[1], 0)
    if not bottom and not right:
        return image, label
    edges = (0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return cv2.copyMakeBorder(image, *edges, value=(0, 0, 0)), cv2.copyMakeBorder(label, *edges, value=mark)
