"""The figure of a search that shows every trial as a line over all parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import LogLocator, MaxNLocator

from recyclelora.reports.comparison import Comparison
from recyclelora.reports.figure_style import INK, Drawn, objective_label, scale_of, subplots
from recyclelora.reports.grouping import value_text
from recyclelora.reports.space import Axis, axes, searched

MOST_AXES = 10
WIDE = 1.25
"""Inches from one axis to the next."""
LONGEST = 13
"""Characters of a line of text that fit between two axes."""
ABSENT = -0.14
"""Where a line crosses the axis of a parameter that its trial does not have."""


def parallel(c: Comparison) -> Drawn:
    """Every finished trial as a line over all parameters, coloured by the first objective."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.values]
    every = axes(trials)
    found = every[:MOST_AXES]
    if len(trials) < 3 or len(found) < 2 or not c.study.is_sweep:
        return None
    values = np.array([t.values[0] for t in trials if t.values])
    scale = scale_of(c.study.objectives[0])
    columns = [*found, Axis(objective_label(c), "", [float(scale * v) for v in values], log=False)]
    figure, panel = subplots(1, 1, (WIDE * len(columns) + 1, 3.9))
    shade = mpl.colormaps["viridis"]
    _lines(panel, columns, values if c.study.directions[0] == "maximize" else -values, values, shade)
    lacking = any(v is None for axis in columns for v in axis.values)
    _scales(panel, columns)
    panel.set_xlim(-0.1, len(columns) - 0.45)
    panel.set_xticks(range(len(columns)), [_wrapped(axis.name) for axis in columns])
    panel.tick_params(axis="x", length=0)
    panel.set_yticks([])
    panel.set_ylim(ABSENT - 0.05 if lacking else -0.06, 1.06)
    for side in ("left", "bottom"):
        panel.spines[side].set_visible(False)
    bar = mpl.cm.ScalarMappable(mpl.colors.Normalize(scale * values.min(), scale * values.max()), shade)
    figure.colorbar(bar, ax=panel, pad=0.02).set_label(objective_label(c))
    caption = "One line a finished trial; the colour is its objective."
    caption += " Below an axis: trials without that parameter." if lacking else ""
    caption += f" The first {MOST_AXES} of {len(every)} parameters." if len(every) > MOST_AXES else ""
    return figure, "Parallel coordinates", caption


def _lines(panel: Any, columns: Sequence[Axis], good: np.ndarray, values: np.ndarray, shade: Any) -> None:
    """The trials, the best on top and the least transparent.

    Args:
        good: the objective of each trial, more is better, (trials,)
        values: the objective as it is, (trials,)
    """
    places = np.array([axis.positions() for axis in columns])
    places[np.isnan(places)] = ABSENT
    rng = np.random.default_rng(0)
    apart = np.array([[0.0 if axis.numeric and len(axis.levels) > 12 else 0.012] for axis in columns])
    jitter = apart * rng.uniform(-1, 1, places.shape)  # so that lines through equal choices stay visible
    order = np.argsort(good)
    spread = np.ptp(values) or 1.0
    colours = shade((values[order] - values.min()) / spread)
    colours[:, 3] = 0.35 + 0.6 * (good[order] - good.min()) / spread
    lines = [np.column_stack([np.arange(len(columns)), line]) for line in (places + jitter).T[order]]
    panel.add_collection(LineCollection(lines, colors=colours, linewidths=1.3))


def _scales(panel: Any, columns: Sequence[Axis]) -> None:
    """The axes with their values."""
    box = {"boxstyle": "round,pad=0.12", "facecolor": "#ffffffcc", "edgecolor": "none"}
    for column, axis in enumerate(columns):
        panel.plot([column, column], [0, 1], color=INK, linewidth=0.8)
        lacking = [(ABSENT, "–")] if any(v is None for v in axis.values) else []
        for place, text in [*_ticks(axis), *lacking]:
            panel.annotate(
                text, (column, place), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center",
                bbox=box, color="#000000",
            )  # fmt: skip


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Where which values stand on an axis from 0 to 1; of many numbers round ones."""
    if not axis.numeric or len(axis.levels) <= 8:
        known = {value_text(v): p for v, p in zip(axis.values, axis.positions(), strict=True) if v is not None}
        return [(float(place), _wrapped(text)) for text, place in known.items()]
    low, high = axis.levels[0], axis.levels[-1]
    if axis.logarithmic:
        ratio = high / low
        places = LogLocator(subs=(1.0,) if ratio >= 100 else (1.0, 2.0, 5.0), numticks=12)
        return [(float(np.log(v / low) / np.log(ratio)), f"{v:g}") for v in places.tick_values(low, high)
                if low <= v <= high]  # fmt: skip
    even = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10])
    return [(float((v - low) / (high - low)), f"{v:g}") for v in even.tick_values(low, high) if low <= v <= high]


def _wrapped(text: str) -> str:
    """Text as wide as there is room beside an axis, of up to three lines."""
    apart = text.replace("_", "_\u200b").replace(".", ".\u200b").replace("\u200b", " \u200b")
    lines = [line.replace(" \u200b", "") for line in textwrap.wrap(apart, LONGEST)]
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2][: LONGEST - 1].rstrip(",. ") + "…"])
