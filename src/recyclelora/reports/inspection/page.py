"""The report as one self-contained HTML page: defects, class frequencies, and samples with their masks."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from recyclelora.data.datasets import Dataset
from recyclelora.drawing.tiles import ClassColours
from recyclelora.reports.inspection.report import NamedDataset, Report
from recyclelora.system.errors import UserError

WIDTH = 400
"""Pixels across a sample's picture."""
SHOWN_DEFECTS = 200
"""As many are listed for each kind; the JSON file has all."""


@dataclass(frozen=True)
class Picture:
    """One sample: the image, and the image with its mask over it, as data URIs."""

    name: str
    image: str
    overlay: str | None


def write_page(report: Report, entries: Sequence[NamedDataset], colours: ClassColours, num_samples: int) -> str:
    """The page as HTML text.

    Args:
        report: what was found
        entries: the datasets, to read samples from
        colours: of the classes
        num_samples: pictures of each dataset, spread evenly over it
    """
    kinds: dict[tuple[str, str], list[object]] = {}
    for defect in report.defects:
        kinds.setdefault((defect.severity, defect.kind), []).append(defect)
    highest = max((float(d.frequencies.max(initial=0)) for d in report.datasets), default=1.0)
    environment = Environment(
        loader=PackageLoader("recyclelora.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("inspection.html").render(
        report=report, kinds=kinds, shown=SHOWN_DEFECTS, highest=highest or 1.0,
        colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours.colours],
        pictures={entry.name: pictures(entry.dataset, colours, num_samples) for entry in entries},
    )  # fmt: skip


def pictures(dataset: Dataset, colours: ClassColours, count: int) -> list[Picture]:
    """``count`` samples spread evenly over a dataset; those that cannot be read are left out."""
    found = []
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int):
        try:
            sample = dataset.load(int(index))
        except UserError:
            continue  # it is among the defects
        overlay = _jpeg(colours.overlay(sample.image, sample.label)) if dataset.labelled else None
        found.append(Picture(sample.name, _jpeg(sample.image), overlay))
    return found


def _jpeg(image: np.ndarray) -> str:
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    small = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
