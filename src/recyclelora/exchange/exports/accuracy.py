"""What low precision costs: mIoU of an export beside that of the run's model, on images of source validation."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from recyclelora.data.datasets import seeded_subset
from recyclelora.data.labels import IGNORE
from recyclelora.data.open import open_all
from recyclelora.evaluation.metrics import ConfusionMatrix, mean_iou
from recyclelora.exchange.exports.source import Source
from recyclelora.system.errors import UserError, first_line

IMAGES = 16
"""As many are drawn."""
MOST_LOST = 0.01
"""mIoU that a precision may cost; an export that loses more is not written."""


class Predicts(Protocol):
    """Anything that segments an image as the export's ``load.py`` does."""

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class ids (H, W) and confidence of a uint8 RGB image (H, W, 3)."""


def lost(source: Source, exported: Predicts) -> dict[str, Any] | str:
    """mIoU between 0 and 1 of both models, and the difference; why it cannot be known where the data are not there.

    Raises:
        UserError: it loses more than `MOST_LOST`.
    """
    config = source.run.config
    try:
        (dataset,) = open_all([config.data.source_val], config.data, config.cache)
        sample = config.data.protocol.prepared(seeded_subset(dataset, IMAGES, 0))
        counts = [ConfusionMatrix(len(config.data.classes.names), IGNORE) for _ in range(2)]
        for index in range(len(sample)):
            one = sample.load(index)
            counts[0].update(one.label, source.run.predict(one.image).ids)
            counts[1].update(one.label, exported.predict(one.image)[0])
    except UserError as error:
        return f"what it costs in mIoU was not measured: {first_line(error)}"
    before, after = (mean_iou(count.iou()) for count in counts)
    if before is None or after is None:
        return "what it costs in mIoU was not measured: source validation has no labelled pixel"
    if before - after > MOST_LOST:
        raise UserError(
            f"the export loses {100 * (before - after):.1f} points of mIoU on {len(sample)} images of source "
            f"validation ({100 * before:.1f} to {100 * after:.1f} %); allowed: {100 * MOST_LOST:g}; not written"
        )
    return {"images": len(sample), "run": before, "export": after, "lost": before - after}
