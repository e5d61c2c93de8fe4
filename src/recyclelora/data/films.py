"""Films and streams: their frames one after the other, and a film made of pictures; by OpenCV's own FFmpeg."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from recyclelora.system.errors import UserError

STREAM = re.compile(r"(rtsp|rtmp|udp|tcp|https?)://\S+|/dev/video\d+")
"""What is no file: a camera, or an address that sends frames until it is stopped."""
CODECS = ("vp09", "mp4v")
"""Of the films that are written: VP9, which browsers show, else MPEG-4."""
FPS = 25.0
"""Where a film does not say how fast it is."""


@dataclass(frozen=True)
class Film:
    """An open film or stream.

    Attributes:
        source: path or address.
        fps: frames a second.
        frames: how many there are; None where that is not known.
        size: (H, W) as frames are shown.
    """

    source: str
    fps: float
    frames: int | None
    size: tuple[int, int]
    _capture: Any

    def read(self, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Number and uint8 RGB (H, W, 3) of each ``every``-th frame."""
        number = 0
        while self._capture.grab():
            if number % every == 0:
                good, frame = self._capture.retrieve()
                if not good:
                    return
                yield number, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1


@contextmanager
def opened(source: str) -> Iterator[Film]:
    """A film or stream.

    Raises:
        UserError: it cannot be opened, or holds no frame.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # what is wrong is said here, in one line
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(source)
    try:
        width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if not capture.isOpened() or min(width, height) < 1:
            raise UserError(f"{source}: cannot be read as a film")
        fps, count = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        known = count if count > 0 and not STREAM.fullmatch(source) else None
        yield Film(source, fps if 0 < fps < 1000 else FPS, known, (height, width), capture)
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(before)


class FilmWriter:
    """Writes a film of equally large pictures; it can be played whenever writing ended.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self.path, self.size = path, size
        path.parent.mkdir(parents=True, exist_ok=True)
        for codec in CODECS:
            self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size[::-1])
            if self._writer.isOpened():
                return
        raise UserError(f"{path}: this OpenCV writes no film ({', '.join(CODECS)})")

    def add(self, picture: np.ndarray) -> None:
        """Append a uint8 RGB picture (H, W, 3); one of another size is stretched."""
        if picture.shape[:2] != self.size:
            picture = cv2.resize(picture, self.size[::-1], interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """End the file."""
        self._writer.release()
