"""Counts of an evaluation that may be stopped: it goes on where it was, instead of from the first image."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recyclelora.errors import UserError
from recyclelora.storage import read_json, write_json

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
            found = np.array(stored["counts"], np.int64)
            if stored["key"] == self.key and found.shape == counts.shape:
                return int(stored["done"]), found
        except (UserError, ValueError, KeyError, TypeError):
            pass  # there is none, or it was damaged: count from the first image
        return 0, counts

    def update(self, done: int, counts: np.ndarray) -> None:
        """Keep the counts of the first ``done`` batches, now and then."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"key": self.key, "done": done, "counts": counts.tolist()})
            self._saved = time.monotonic()
