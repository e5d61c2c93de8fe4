"""Loads a logged adapter for ``mlflow.pyfunc``: named by the model's ``MLmodel`` file, and no pickle is involved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np


class SegmentationModel:
    """What ``mlflow.pyfunc.load_model`` wraps."""

    def __init__(self, folder: Path) -> None:
        from recyclelora.evaluation.load import load

        self.model = load(folder)

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> np.ndarray | list[np.ndarray]:
        """Segment images under the run's test protocol.

        Args:
            images: one uint8 RGB image (H, W, 3) or the path of one; several as an array (B, H, W, 3), a list, or a
                data frame whose first column holds paths
            params: none are known

        Returns:
            uint8 train ids (H, W); a list of them for several images.
        """
        if isinstance(images, str | Path) or (isinstance(images, np.ndarray) and images.ndim == 3):
            return self._ids(images)
        several: Iterable[Any] = images.iloc[:, 0] if hasattr(images, "iloc") else images
        return [self._ids(image) for image in several]

    def _ids(self, image: Any) -> np.ndarray:
        return self.model.predict(image).ids


def _load_pyfunc(data_path: str) -> SegmentationModel:
    """The entry that MLflow calls with the model's ``data`` folder."""
    return SegmentationModel(Path(data_path))
