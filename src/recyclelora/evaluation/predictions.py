"""What a model says of images, and the files it is written to: id masks, overlays and confidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from recyclelora.data.datasets import Dataset
from recyclelora.drawing.sheets import ClassColours, data_uri, legend, save_png
from recyclelora.evaluation.evaluator import Evaluator, Stopped
from recyclelora.models.segmenter import Segmenter
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter, shown
from recyclelora.system.storage import write_json

LEGEND_WIDTH = 1200
"""Pixels."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image."""

    ids: np.ndarray
    """uint8 train ids (H, W)"""
    confidence: np.ndarray
    """float32 probability of the chosen class (H, W)"""
    image: np.ndarray | None = field(default=None, repr=False)
    """uint8 RGB (H, W, 3) that was segmented, where it is known"""
    classes: ClassColours | None = field(default=None, repr=False)
    """names and colours by train id, where they are known"""

    def overlay(self, opacity: float = 0.55) -> np.ndarray:
        """The classes' colours over the image, uint8 RGB (H, W, 3).

        Raises:
            ValueError: image or classes are not known.
        """
        if self.image is None or self.classes is None:
            raise ValueError("a prediction without its image and classes cannot be drawn")
        return self.classes.overlay(self.image, self.ids, opacity)

    def shares(self) -> dict[str, float]:
        """Class -> its share of the pixels, the largest first; classes that do not occur are left out."""
        counts = np.bincount(self.ids.ravel())
        names = self.classes.names if self.classes else [str(index) for index in range(len(counts))]
        return {names[index]: float(counts[index] / self.ids.size) for index in np.argsort(-counts) if counts[index]}

    def _repr_html_(self) -> str:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in self.shares().items())
        about = f"<p>{shares}<br>mean confidence {100 * float(self.confidence.mean()):.0f} %</p>"
        known = self.image is not None and self.classes is not None
        return (f'<img src="{data_uri(self.overlay(), 640)}">' if known else "") + about


def predict(
    segmenter: Segmenter,
    evaluator: Evaluator,
    image: np.ndarray,
    dataset: str = "",
    advance: Callable[[int], None] = lambda count: None,
) -> Prediction:
    """Segment one uint8 RGB image (H, W, 3) as the test protocol shows images of ``dataset`` to the model.

    ``advance`` is told of windows done.
    """
    confidence, ids = evaluator.probabilities(segmenter, [image], dataset, advance)[0].float().max(0)
    return Prediction(ids.to(torch.uint8).cpu().numpy(), confidence.cpu().numpy())


def save_prediction(folder: Path, name: str, image: np.ndarray, prediction: Prediction, classes: ClassColours) -> None:
    """Write ``<name>.png`` to ``ids``, ``colours``, ``overlays`` and ``confidence`` below a folder."""
    save_png(prediction.ids, folder / "ids" / f"{name}.png")
    save_png(classes.paint(prediction.ids), folder / "colours" / f"{name}.png")
    save_png(classes.overlay(image, prediction.ids), folder / "overlays" / f"{name}.png")
    save_png((255 * prediction.confidence).astype("uint8"), folder / "confidence" / f"{name}.png")


def save_classes(folder: Path, classes: ClassColours) -> None:
    """Write ``classes.json``, what the ids mean, and ``legend.png``, what the colours mean."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(classes.names, classes.colours, strict=True)
    write_json(folder / "classes.json", [{"id": i, "name": n, "colour": list(c)} for i, (n, c) in enumerate(rows)])
    save_png(legend(classes, LEGEND_WIDTH), folder / "legend.png")


def predict_unlabelled(
    segmenter: Segmenter,
    evaluator: Evaluator,
    datasets: Mapping[str, Dataset],
    folder: Path,
    classes: ClassColours,
    reporter: Reporter,
    stop: Callable[[], bool] = lambda: False,
) -> list[UserError]:
    """Write the predictions of every dataset that has no labels to be scored with to ``folder/<name>``, and say so.

    Returns:
        what could not be read; all else is written, under the names of the images.

    Raises:
        Stopped: ``stop``, asked before each image, said so.
    """
    protocol, broken = evaluator.protocol, list[UserError]()
    for name, dataset in datasets.items():
        if dataset.labelled:
            continue
        segmenter.eval()
        prepared, key, place = protocol.prepared(dataset), protocol.key(dataset), folder / name
        save_classes(place, classes)
        with reporter.bar(f"predicting {name}", len(dataset)) as update:
            for index in range(len(prepared)):
                if stop():
                    raise Stopped
                try:
                    sample = prepared.load(index)
                except UserError as error:
                    broken.append(error)
                else:
                    prediction = predict(segmenter, evaluator, sample.image, key)
                    stem = str(PurePosixPath(sample.name).with_suffix(""))
                    save_prediction(place, stem, sample.image, prediction, classes)
                update(1)
        reporter.note(f"{name} has no labels and is not scored; predictions: {shown(place)}")
    return broken
