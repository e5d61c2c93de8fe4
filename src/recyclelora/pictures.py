"""The pictures of a finished run: which images are shown, from which sets."""

from __future__ import annotations

from typing import Any

from recyclelora import figures
from recyclelora.build_data import class_colours
from recyclelora.data.datasets import Dataset
from recyclelora.provenance import RunDirectory
from recyclelora.session import Session


def save_pictures(directory: RunDirectory, session: Session, result: dict[str, Any]) -> None:
    """Write curves, IoU by class, an overview of all sets and a panel for each."""
    folder = directory.figures
    classes = session.config.data.classes
    scored = {name: row for name, row in result["iou_per_class"].items() if session.datasets.scored[name].labelled}
    figures.save_iou_heatmap(scored, classes.names, folder / "iou_per_class.png")
    figures.save_curves(directory.metrics, folder / "curves.png")
    colours = class_colours(session.config.data)
    first_rows = []
    for name, dataset in session.datasets.scored.items():
        rows = [_shown(session, name, dataset, index) for index in _spread(len(dataset), session)]
        if rows:
            figures.save_png(figures.panel(rows, colours), folder / f"predictions_{name}.png")
            first_rows.append(rows[0])
    if first_rows:
        figures.save_png(figures.panel(first_rows, colours), folder / "overview.png")


def _spread(length: int, session: Session) -> list[int]:
    """Fixed images spread evenly over a set."""
    count = min(session.config.trainer.num_figures, length)
    return [(2 * index + 1) * length // (2 * count) for index in range(count)]


def _shown(session: Session, name: str, dataset: Dataset, index: int) -> figures.Shown:
    sample = session.evaluator.protocol.prepared(dataset).load(index)
    prediction = session.evaluator.predict(session.segmenter.eval(), [sample.image], dataset.name)[0]
    return figures.Shown(name, sample.image, sample.label if dataset.labelled else None, prediction)
