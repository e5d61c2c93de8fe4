"""Figures of further metrics: reliability diagrams and scores over severity. Data in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recyclelora.drawing.style import BLUE, GREY, grid, line
from recyclelora.evaluation.pixel_metrics import Calibration

SHOWN = 12
"""Sets of a reliability diagram; more would be too small to read."""


def reliability(sums: Mapping[str, np.ndarray], about: str = "") -> Any:
    """Accuracy by confidence of each set; on the diagonal confidence is right, below it the model is too sure.

    Args:
        sums: set -> sums of `Calibration` (images, size)
        about: the run
    """
    shown = list(sums.items())[:SHOWN]
    columns = min(4, len(shown))
    figure, axes = grid(-(-len(shown) // columns), columns, "Reliability of confidence", about, (2.9, 3.1))
    metric = Calibration()
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (name, rows) in zip(axes.flat, shown, strict=False):
        count, accuracy, _ = binned(rows)
        width = 100 / metric.bins
        axis.bar(width * (np.arange(metric.bins) + 0.5), 100 * accuracy, 0.92 * width, color=BLUE, label="accuracy")
        axis.bar(
            width * (np.arange(metric.bins) + 0.5), 100 * count / max(count.sum(), 1), 0.4 * width, color=GREY,
            label="share of pixels",
        )  # fmt: skip
        axis.plot([0, 100], [0, 100], color="black", linewidth=1.2, linestyle="--", label="right confidence")
        axis.set_xlim(0, 100)
        axis.set_ylim(0, 100)
        axis.set_aspect("equal")
        ece = metric(rows, []).get("ece")
        axis.set_title(name + ("" if ece is None else f"\nECE {100 * ece:.1f} %"), fontsize=9.5)
    for axis in axes[-1]:
        axis.set_xlabel("confidence, %", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("%", fontsize=9)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def binned(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, accuracy and mean confidence of each bin, (bins,); 0 where a bin is empty."""
    count, confidence, right = sums.sum(0).reshape(3, -1)
    some = np.maximum(count, 1)
    return count, right / some, confidence / some


def severity(found: Mapping[str, Any], about: str = "") -> Any:
    """Mean mIoU of the targets over the severity of each corruption, from ``severity`` of an evaluation."""
    figure, axes = grid(1, 1, "mIoU over the severity of corruptions", about, (8.2, 4.4))
    draw_severity(axes[0, 0], {"": [found]}, by_corruption=True)
    return figure


def draw_severity(axis: Any, found: Mapping[str, Sequence[Mapping[str, Any]]], *, by_corruption: bool = False) -> None:
    """A line a group over severity, the mean over corruptions and runs; or a line a corruption.

    Args:
        axis: where
        found: group -> ``severity`` of its evaluations
        by_corruption: of all groups together
    """
    for group, ones in found.items():
        rows: dict[str, dict[int, list[float]]] = {}
        for one in ones:
            for corruption, curve in one["curves"].items():
                row = rows.setdefault(corruption.replace("_", " ") if by_corruption else group, {})
                for step, value in [("0", one["clean"]), *curve.items()]:
                    if value is not None:
                        row.setdefault(int(step), []).append(100 * value)
        for name, row in rows.items():
            colour, dashes = line(len(axis.lines))
            steps = sorted(row)
            axis.plot(
                steps, [np.mean(row[s]) for s in steps], color=colour, linestyle=dashes, marker="o", markersize=4,
                label=name,
            )  # fmt: skip
    axis.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])
    axis.set_xlabel("severity", fontsize=9)
    axis.set_ylabel("mean of targets, mIoU in %", fontsize=9)
    axis.set_ylim(bottom=0)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
