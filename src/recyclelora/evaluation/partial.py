"""Counts of an evaluation that may be stopped: it goes on where it was, instead of from the first image."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.system.errors import UserError
from recyclelora.system.storage import make_folder, read_json, write_json

SAVE_EVERY = 60.0
"""Seconds of scoring that a kill may cost."""
WORTH_KEEPING = 5.0
"""Seconds that a set took whose counts are kept at its end, while others are scored."""


@dataclass
class PartialCounts:
    """How far one process has come with one set.

    Attributes:
        path: where it is kept.
        key: of everything that the counts depend on; those of another key are not used.
    """

    path: Path
    key: str
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    def load(self, num_classes: int, metrics: Iterable[str] = ()) -> tuple[int, ImageCounts]:
        """Batches that are done, and the counts of their images; none where sums of one of the metrics are missing."""
        try:
            stored = read_json(self.path)
            images, done = stored["images"], int(stored["done"])
            if stored["sha256"] == self._sha256(done, images):
                counts = ImageCounts.from_json(images, num_classes)
                if counts.sums.keys() == set(metrics):
                    return done, counts
        except (UserError, ValueError, KeyError, TypeError, OverflowError):
            pass  # there is none, or it was damaged: count from the first image
        return 0, ImageCounts(num_classes)

    def update(self, done: int, images: ImageCounts, *, now: bool = False) -> None:
        """Keep the counts of the first ``done`` batches, now and then or ``now``."""
        if now or time.monotonic() - self._saved >= SAVE_EVERY:
            make_folder(self.path.parent)
            kept = images.to_json()
            write_json(self.path, {"done": done, "images": kept, "sha256": self._sha256(done, kept)}, indent=None)
            self._saved = time.monotonic()

    def finish(self, done: int, images: ImageCounts) -> None:
        """Keep the counts of the whole set where counting again would take long."""
        if time.monotonic() - self._began >= WORTH_KEEPING:
            self.update(done, images, now=True)

    def _sha256(self, done: int, images: Any) -> str:
        """Of all that is kept and of the key: a flipped digit would be a wrong score."""
        return hashlib.sha256(f"{self.key} {done} {json.dumps(images)}".encode()).hexdigest()
