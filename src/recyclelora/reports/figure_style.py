"""How figures of a report look and are written: text and axes take the reader's colour on the page, black on paper."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

from recyclelora.drawing.style import GREY
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.grouping import wrapped
from recyclelora.reports.groups import MEAN, SOURCE, ScoredGroup
from recyclelora.sweep.goals import is_miou

INK = "#1b1c1d"
"""Stands for the text's colour: the page replaces it by ``currentColor``."""
MOST_GROUPS = 25
"""As many fit into one figure; the tables have all."""

Drawn = tuple[Any, str, str] | None
"""A figure with title and caption; None where the study has no data for it."""


@contextmanager
def style() -> Iterator[None]:
    """Draw with the report's style while inside."""
    mpl.use("Agg")
    ink = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    options: dict[Any, Any] = {
        **ink, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.alpha": 0.3,
        "grid.linewidth": 0.6, "grid.color": GREY, "font.size": 10, "axes.labelsize": 10, "xtick.labelsize": 9,
        "ytick.labelsize": 9, "legend.fontsize": 9, "svg.fonttype": "none", "svg.hashsalt": "report",
        "font.family": "sans-serif", "pdf.fonttype": 42,
    }  # fmt: skip
    with mpl.rc_context(options):
        yield


def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure of a size in inches, and its panels."""
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", **options)


def write(figure: Any, folder: Path, name: str) -> str:
    """Write PDF and PNG; returns the SVG for the page."""
    from matplotlib import pyplot

    figure.draw_without_rendering()  # arranges everything once instead of for each format
    figure.set_layout_engine("none")
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(folder / f"{name}.png", dpi=150, facecolor="white", pil_kwargs={"compress_level": 3})
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # ids must differ between the figures of one page
    svg = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    return re.sub(
        r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="width:\2pt;max-width:100%"', svg, count=1
    )


def shown(c: Comparison) -> list[ScoredGroup]:
    """The first groups, and always the reference, if it is one of them."""
    first, others = c.groups[:MOST_GROUPS], c.groups[MOST_GROUPS:]
    return [*first[:-1], c.reference] if c.reference is not None and c.reference in others else first


def left_out(c: Comparison) -> str:
    """Says in a caption that not all groups are shown."""
    return f" The first {MOST_GROUPS} of {len(c.groups)} groups." if len(c.groups) > MOST_GROUPS else ""


def marked_name(group: ScoredGroup, c: Comparison) -> str:
    """A group's name for an axis; the reference has a star."""
    return wrapped(group.name) + (" *" if group is c.reference and len(c.groups) > 1 else "")


def on_paper(colour: str) -> str:
    """Black would vanish on a dark page."""
    return INK if colour == "#000000" else colour


def scale_of(objective: str) -> float:
    """mIoU is shown in percent."""
    return 100.0 if is_miou(objective) else 1.0


def objective_label(c: Comparison) -> str:
    """Label of an axis that shows the first objective."""
    name = c.study.objectives[0]
    source = SOURCE if not c.alone else MEAN
    known = {"source_val": source, "miou.source_val": source, "target_mean": MEAN, "miou.mean": MEAN}
    if is_miou(name):
        return label_of(known.get(name, name), c)
    return f"{name}\n(tuned on targets)" if c.tuned_on_targets else name


def label_of(name: str, c: Comparison) -> str:
    """Label of an axis that shows an mIoU in percent."""
    return f"{c.title(name)}, mIoU in %" + ("\n(tuned on targets)" if c.tuned_on_targets else "")
