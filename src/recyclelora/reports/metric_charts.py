"""Figures of a report on further metrics: reliability, severity of corruptions, boundaries and doubt."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from recyclelora.drawing.style import GREY, line
from recyclelora.evaluation.metric_plots import binned, draw_severity
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.figure_style import INK, Drawn, left_out, on_paper, shown, subplots
from recyclelora.reports.grouping import wrapped
from recyclelora.reports.groups import Scored, ScoredGroup
from recyclelora.runs.directory import EVALUATIONS

MOST_LINES = 8
CALIBRATION = "calibration"


def reliability(c: Comparison) -> Drawn:
    """Accuracy by confidence of each group, over all targets and seeds."""
    found = {g.name: rows for g in shown(c)[:MOST_LINES] if (rows := _sums(g)) is not None}
    if not found:
        return None
    figure, panel = subplots(1, 1, (7.4, 4.2))
    panel.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, linestyle="--", label="right confidence")
    for index, (name, rows) in enumerate(found.items()):
        count, accuracy, confidence = binned(rows)
        some = count > 1e-4 * count.sum()  # a bin of a few pixels says nothing
        colour, dashes = line(index)
        panel.plot(
            100 * confidence[some], 100 * accuracy[some], color=on_paper(colour), linestyle=dashes, marker="o",
            markersize=3.5, label=wrapped(name, 30),
        )  # fmt: skip
    panel.set_xlabel("confidence, %")
    panel.set_ylabel("accuracy, %")
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 100)
    panel.grid()
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    caption = "All pixels of all targets and seeds, in bins of confidence. Below the dashes: more sure than right."
    return figure, "Reliability of confidence", caption + left_out(c)


def severity(c: Comparison) -> Drawn:
    """Mean of targets over the severity of corruptions, where runs were evaluated under them."""
    found = {
        wrapped(g.name, 30): ones
        for g in shown(c)[:MOST_LINES]
        if (ones := [s for run in g.runs for s in _severities(run)])
    }
    if not found:
        return None
    figure, panel = subplots(1, 1, (7.4, 3.8))
    draw_severity(panel, found)
    for drawn in panel.lines:
        drawn.set_color(INK if drawn.get_color() == "#000000" else drawn.get_color())
    panel.grid()
    names = sorted({name for ones in found.values() for one in ones for name in one["curves"]})
    caption = f"Mean over seeds and corruptions ({', '.join(names).replace('_', ' ')}), of the targets' mean."
    if len({tuple(sorted(one["curves"])) for ones in found.values() for one in ones}) > 1:
        caption += " Not all runs were scored under the same corruptions: the lines do not compare."
    return figure, "Score over the severity of corruptions", caption


def _sums(group: ScoredGroup) -> np.ndarray | None:
    """Of `Calibration`, (images, size): all targets and runs of a group that kept them."""
    rows = [n.sums[CALIBRATION] for run in group.runs for n in run.images.values() if CALIBRATION in n.sums]
    return np.concatenate(rows) if rows else None


def _severities(scored: Scored) -> list[dict[str, Any]]:
    """What `evaluate corruptions=[...]` found of a run's checkpoint; of several answers the newest."""
    paths = (scored.run.path / EVALUATIONS).glob("*.json")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            answer = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # damaged, or on its way
        if "severity" in answer and answer.get("checkpoint") == scored.selection:
            return [answer["severity"]]
    return []
