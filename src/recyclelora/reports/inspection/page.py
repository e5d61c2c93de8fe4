"""The report as one self-contained HTML page: defects, class frequencies, and samples with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recyclelora.data.datasets import Dataset
from recyclelora.drawing.sheets import ClassColours, data_uri
from recyclelora.reports.html import rendered
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
    return rendered(
        "inspection.html", report=report, kinds=kinds, shown=SHOWN_DEFECTS, highest=highest or 1.0,
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
        overlay = data_uri(colours.overlay(sample.image, sample.label), WIDTH) if dataset.labelled else None
        found.append(Picture(sample.name, data_uri(sample.image, WIDTH), overlay))
    return found
