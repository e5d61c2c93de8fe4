"""What is counted of single images: confusion matrices, sparse and small, and the sums of pixel metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from recyclelora.system.errors import UserError
from recyclelora.system.storage import write_bytes

SUMS = "sums/"


class ImageCounts:
    """One confusion matrix for each image of a dataset, in its order; of each only the cells that are not zero.

    ``drives`` are numbers (images,) of the drives that the images are frames of; None where they are not known.
    ``sums`` hold for each pixel metric a float64 vector an image, see :mod:`recyclelora.evaluation.pixel_metrics`.
    """

    def __init__(self, num_classes: int, drives: Sequence[str] | None = None) -> None:
        self.num_classes = num_classes
        self.drives = None if drives is None else np.unique(drives, return_inverse=True)[1].astype(np.int32)
        self._cells: list[np.ndarray] = []
        self._pixels: list[np.ndarray] = []
        self._sums: dict[str, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, matrix: np.ndarray, sums: Mapping[str, np.ndarray] | None = None) -> None:
        """Append the matrix (num_classes, num_classes) of the next image, and its sums."""
        flat = matrix.reshape(-1)
        cells = np.flatnonzero(flat)
        self._cells.append(cells.astype(np.uint16))  # 255 classes have 65,025 cells
        self._pixels.append(flat[cells].astype(np.int64))
        for name, values in (sums or {}).items():
            self._sums.setdefault(name, []).append(values)

    @property
    def sums(self) -> dict[str, np.ndarray]:
        """Pixel metric -> float64 (images, numbers)."""
        return {name: np.stack(rows) for name, rows in self._sums.items() if rows}

    def part(self, name: str, start: int, length: int, size: int) -> np.ndarray:
        """Sums (length, size) of a pixel metric from image ``start`` on."""
        rows = self._sums.get(name, [])[start : start + length]
        return np.stack(rows) if rows else np.zeros((0, size))

    def replace(self, other: ImageCounts) -> None:
        """Take over the images of another one."""
        self.num_classes, self._cells, self._pixels = other.num_classes, list(other._cells), list(other._pixels)
        self._sums = {name: list(rows) for name, rows in other._sums.items()}

    def dense(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The matrices of the images ``start`` to ``stop`` as int64 (images, num_classes, num_classes)."""
        cells, pixels = self._cells[start:stop], self._pixels[start:stop]
        found = np.zeros((len(cells), self.num_classes**2), np.int64)
        for row, where, count in zip(found, cells, pixels, strict=True):
            row[where] = count
        return found.reshape(-1, self.num_classes, self.num_classes)

    def total(self) -> np.ndarray:
        """Their sum, int64 (num_classes, num_classes)."""
        flat = np.zeros(self.num_classes**2, np.int64)
        for where, count in zip(self._cells, self._pixels, strict=True):
            flat[where] += count
        return flat.reshape(self.num_classes, self.num_classes)

    def to_json(self) -> list[list[Any]]:
        """``[cells, pixels]`` of each image, and its sums where there are any."""
        found: list[list[Any]] = [[c.tolist(), p.tolist()] for c, p in zip(self._cells, self._pixels, strict=True)]
        for index, row in enumerate(found if self._sums else ()):
            row.append({name: rows[index].tolist() for name, rows in self._sums.items()})
        return found

    @classmethod
    def from_json(cls, stored: Any, num_classes: int) -> ImageCounts:
        """Back from `to_json`; raises ValueError, TypeError or OverflowError for anything else."""
        found = cls(num_classes)
        for cells, pixels, *sums in stored:
            found._cells.append(np.array(cells, np.uint16))
            found._pixels.append(np.array(pixels, np.int64))
            for name, values in (sums[0] if sums else {}).items():
                found._sums.setdefault(name, []).append(np.array(values, np.float64))
        found._check()
        return found

    def save(self, path: Path) -> None:
        """Write ``offsets`` (images + 1,), ``cells`` and ``pixels`` (cells that are not zero,) as safetensors.

        And ``drives`` (images,) where they are known, ``sums/<name>`` (images, numbers) where there are any.
        """
        lengths = [len(cells) for cells in self._cells]
        arrays = {
            "offsets": np.cumsum([0, *lengths]),
            "cells": np.concatenate([np.zeros(0, np.uint16), *self._cells]),
            "pixels": np.concatenate([np.zeros(0, np.int64), *self._pixels]).astype(np.int32),
            "num_classes": np.array([self.num_classes]),
        }
        if self.drives is not None:
            arrays["drives"] = self.drives
        arrays |= {f"{SUMS}{name}": values for name, values in self.sums.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, serialise(arrays))

    @classmethod
    def load(cls, path: Path) -> ImageCounts:
        """Read what `save` wrote.

        Raises:
            UserError: it cannot be read or holds something else.
        """
        try:
            arrays = parse(path.read_bytes())
            found = cls(int(arrays["num_classes"][0]))
            inner = arrays["offsets"][1:-1]
            if len(arrays["offsets"]) > 1:
                found._cells = np.split(arrays["cells"], inner)
                found._pixels = np.split(arrays["pixels"].astype(np.int64), inner)
            found.drives = arrays.get("drives")
            found._sums = {key.removeprefix(SUMS): list(arrays[key]) for key in arrays if key.startswith(SUMS)}
            found._check()
        except (OSError, SafetensorError, KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not the confusion matrices of single images: {error}") from error
        return found

    def _check(self) -> None:
        if self.drives is not None and self.drives.shape != (len(self),):
            raise ValueError("not as many drives as images")
        if any(len(rows) != len(self) for rows in self._sums.values()):
            raise ValueError("not as many sums as images")
        for cells, pixels in zip(self._cells, self._pixels, strict=True):
            if cells.shape != pixels.shape or cells.ndim != 1 or (cells >= self.num_classes**2).any():
                raise ValueError("cells and pixels do not fit each other or the number of classes")
