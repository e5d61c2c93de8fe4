"""The figures of a report, each drawn once for page, paper and slides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recyclelora.reports.comparison import Comparison
from recyclelora.reports.figure_style import Drawn, style, write
from recyclelora.reports.group_charts import cost, differences, per_class, scores, training
from recyclelora.reports.metric_charts import reliability, severity
from recyclelora.reports.parallel import parallel
from recyclelora.reports.race_section import evidence
from recyclelora.reports.search_charts import curve, history, importances, pareto, rank_split


@dataclass(frozen=True)
class Chart:
    """One figure of the report, and what it says."""

    name: str
    title: str
    caption: str
    svg: str


def draw(c: Comparison, folder: Path) -> list[Chart]:
    """Every figure that the study has data for; PDF and PNG go to ``folder``."""
    makers: list[Callable[[Comparison], Drawn]] = [
        scores, evidence, differences, per_class, cost, reliability, severity, history, parallel, importances,
        rank_split, curve, pareto, training,
    ]  # fmt: skip
    charts = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in (maker.__name__ for maker in makers):  # the folder may hold pictures that are not ours
        for kind in (".pdf", ".png"):
            (folder / f"{name}{kind}").unlink(missing_ok=True)
    with style():
        for maker in makers:
            found = maker(c)
            if found is not None:
                figure, title, caption = found
                charts.append(Chart(maker.__name__, title, caption, write(figure, folder, maker.__name__)))
    return charts
