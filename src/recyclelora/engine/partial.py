"""Counts of an evaluation that may be stopped: it goes on where it was, instead of from the first image."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recyclelora.errors import UserError
from recyclelora.storage import make_folder, read_json, write_json

SAVE_EVERY = 60.0
"""Seconds of scoring that a stop may cost."""


@dataclass
class PartialCounts:
    """How far one process has come with one set.

    Attributes:
        path: where it is kept.
        key: of everything that the counts depend on; those of another key are not used.
    """

    path: Path
    key: str
    _saved: float = field(default_factory=time.monotonic)

    def load(self, num_classes: int) -> tuple[int, np.ndarray]:
        """Batches that are done, and their confusion matrix (num_classes, num_classes)."""
        counts = np.zeros((num_classes, num_classes), np.int64)
        try:
            stored = read_json(self.path)
            found, done = np.array(stored["counts"], np.int64), int(stored["done"])
            if stored["sha256"] == self._sha256(done, found) and found.shape == counts.shape:
                return done, found
        except (UserError, ValueError, KeyError, TypeError):
            pass  # there is none, or it was damaged: count from the first image
        return 0, counts

    def update(self, done: int, counts: np.ndarray) -> None:
        """Keep the counts of the first ``done`` batches, now and then."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            make_folder(self.path.parent)
            write_json(self.path, {"done": done, "counts": counts.tolist(), "sha256": self._sha256(done, counts)})
            self._saved = time.monotonic()

    def _sha256(self, done: int, counts: np.ndarray) -> str:
        """Of all that is kept and of the key: a flipped digit would be a wrong score."""
        return hashlib.sha256(f"{self.key} {done} {counts.tolist()}".encode()).hexdigest()
