"""Segmenting image files of any size: how far each is, and what is refused before its pixels are unpacked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from recyclelora.data.headers import read_header
from recyclelora.data.reading import read_upright
from recyclelora.evaluation.evaluator import Stopped
from recyclelora.evaluation.load import Shown, TrainedModel
from recyclelora.evaluation.predictions import save_prediction
from recyclelora.system.errors import UserError
from recyclelora.system.stopping import StopRequest


class Windows:
    """Progress in windows of images whose sizes are not known before they are read.

    Args:
        images: how many there are; each counts as one window until it is read
        update: of the bar
        stop: looked at after each batch of windows
    """

    def __init__(self, images: int, update: Callable[..., None], stop: StopRequest) -> None:
        self.total = images
        self.update = update
        self.stop = stop
        self.left = 1

    def begin(self, windows: int) -> None:
        """The next image has so many."""
        self.total += windows - 1
        self.left = windows
        self.update(0, total=self.total)

    def skip(self) -> None:
        """The image is given up."""
        self.update(self.left)
        self.left = 1

    def advance(self, count: int) -> None:
        """So many more are done.

        Raises:
            Stopped: a signal asks to stop.
        """
        self.left -= count
        self.update(count)
        if self.stop.requested():
            raise Stopped


def predict_file(
    model: TrainedModel, shown: Shown, path: Path, output: Path, name: str, windows: Windows, max_megapixels: float
) -> None:
    """Segment one image file and write what was found.

    Raises:
        UserError: it cannot be read, is too large, or needs more memory than there is.
    """
    check_pixels(path, max_megapixels)
    image = read_upright(path)
    windows.begin(model.evaluator_for((image.shape[0], image.shape[1]), shown).steps((image.shape[0], image.shape[1])))
    try:
        prediction = model.predict(image, shown, windows.advance)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError(
            f"{path}: needs more memory than there is; set size=, or a smaller window= or batch="
        ) from error
    windows.left = 1
    save_prediction(output, name, image, prediction, model.classes)


def check_pixels(path: Path, max_megapixels: float) -> None:
    """Look at the size that a file claims before its pixels are unpacked: a few bytes can claim gigabytes.

    Raises:
        UserError: it is larger than allowed, or not a regular file.
    """
    if not path.is_file():
        raise UserError(f"{path}: not a regular file")
    with _pillow_without_limit():
        header = read_header(path)
    if header is None:
        return  # whoever reads the pixels says what is wrong
    height, width = header.size
    if height * width > 1e6 * max_megapixels:
        raise UserError(
            f"{path}: {width}x{height} pixels are more than max_megapixels={max_megapixels:g}; raise it, or "
            "make the image smaller"
        )


@contextlib.contextmanager
def _pillow_without_limit() -> Iterator[None]:
    """Let Pillow tell the size of any image: its own limit, of the process, is not the one that the user gave."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
