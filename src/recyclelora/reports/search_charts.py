"""Figures of a report that show a search: its trials, parameters and objectives."""

from __future__ import annotations

import numpy as np

from recyclelora.drawing.heatmap import cells, heatmap
from recyclelora.drawing.style import BLUE, GREY, ORANGE, PALETTE, VERMILLION
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.figure_style import Drawn, label_of, objective_label, on_paper, scale_of, subplots
from recyclelora.reports.grouping import value_text
from recyclelora.reports.space import axes, importance, pareto_front, searched

MISSED = ("failed", "pruned", "paused")
"""States of trials that have no final value."""


def history(c: Comparison) -> Drawn:
    """The first objective of every trial in its order, with the best so far."""
    trials = searched(c.study)
    known = [(t.number, t.values[0]) for t in trials if t.values and t.state == "complete" and t.feasible]
    if len(known) < 4 or not c.study.is_sweep or c.study.is_grid:
        return None
    numbers, values = (np.array(column, float) for column in zip(*known, strict=True))
    best = np.maximum.accumulate(values) if c.study.directions[0] == "maximize" else np.minimum.accumulate(values)
    scale = scale_of(c.study.objectives[0])
    figure, panel = subplots(1, 1, (7.4, 3.2))
    panel.scatter(numbers, scale * values, s=22, color=BLUE, alpha=0.7, linewidths=0, label="trial")
    panel.step(numbers, scale * best, where="post", color=VERMILLION, label="best so far")
    low = scale * values.min() - 0.06 * scale * (np.ptp(values) or 1)
    marked = [(state, [t.number for t in trials if t.state == state]) for state in MISSED]
    marked.append(("breaks a constraint", [t.number for t in trials if not t.feasible]))
    for (state, places), marker, colour in zip(marked, "x|_+", (VERMILLION, GREY, GREY, GREY), strict=True):
        if places:
            panel.scatter(places, [low] * len(places), marker=marker, s=30, color=colour, label=state)
    panel.set_xlabel("trial")
    panel.set_ylabel(objective_label(c))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.grid()
    missed = any(t.state in MISSED for t in trials)
    return figure, "Optimisation history", "Failed, pruned and paused trials stand at the lower edge." if missed else ""


def importances(c: Comparison) -> Drawn:
    """How much each parameter decides the first objective."""
    trials = searched(c.study)
    method, found = importance(trials, axes(trials))
    if len(found) < 2 or not c.study.is_sweep:
        return None
    ordered = sorted(found.items(), key=lambda item: item[1])
    figure, panel = subplots(1, 1, (6.4, 0.9 + 0.34 * len(ordered)))
    panel.barh([name for name, _ in ordered], [value for _, value in ordered], color=BLUE, height=0.62)
    panel.set_xlabel(f"importance for {c.study.objectives[0]} ({method})")
    panel.set_xlim(0, max(1e-9, *found.values()) * 1.12)
    panel.grid(axis="x")
    fanova = "Share of the objective's variance over the search space."
    plain = "Strength between 0 and 1 of the relation between a parameter and the objective, each parameter alone."
    return figure, "Importance of parameters", fanova if method == "fANOVA" else plain


def rank_split(c: Comparison) -> Drawn:
    """Mean objective for each pair of ranks."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.values]
    by_key = {axis.key: axis for axis in axes(trials)}
    if not {"adapter.main.rank", "adapter.sub.rank"} <= by_key.keys():
        return None
    main, sub = by_key["adapter.main.rank"], by_key["adapter.sub.rank"]
    scale = scale_of(c.study.objectives[0])
    table = np.full((len(sub.levels), len(main.levels)), np.nan)
    for row, low in enumerate(sub.levels):
        for column, high in enumerate(main.levels):
            cell = [t.values[0] for t, m, s in zip(trials, main.values, sub.values, strict=True)
                    if t.values and m == high and s == low]  # fmt: skip
            table[row, column] = scale * np.mean(cell) if cell else np.nan
    figure, panel = subplots(1, 1, (1.7 + 0.75 * len(main.levels), 1.4 + 0.5 * len(sub.levels)))
    picture = heatmap(panel, table, sub.levels, main.levels, cmap="viridis", origin="lower")
    cells(picture, "{:.2f}", fontsize=8)
    panel.set_xlabel("rank of the main adapter")
    panel.set_ylabel("rank of the sub adapter")
    figure.colorbar(picture, ax=panel, pad=0.02).set_label(objective_label(c))
    return figure, "Rank split", "Mean over the trials of each cell; empty cells were not tried."


def curve(c: Comparison) -> Drawn:
    """Scores over the only number that varies."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.runs]
    found = axes(trials)
    numeric = [axis for axis in found if axis.numeric and len(axis.levels) > 2]
    if len(numeric) != 1 or len(found) > 2:
        return None
    (axis,) = numeric
    others = [a for a in found if a is not axis]
    names = c.names[:2]
    figure, panels = subplots(1, len(names), (4.8 * len(names), 3.4), squeeze=False)
    panels = panels[0]
    scored = {id(s.run): s for g in [*c.groups, *c.search] for s in g.runs}
    lines: dict[str, dict[float, list[dict[str, float]]]] = {}
    for index, trial in enumerate(trials):
        label = ", ".join(value_text(a.values[index]) for a in others)
        for run in trial.runs:
            if id(run) in scored and axis.values[index] is not None:
                lines.setdefault(label, {}).setdefault(axis.values[index], []).append(scored[id(run)].scores)
    for (label, places), colour in zip(lines.items(), PALETTE, strict=False):
        for panel, name in zip(panels, names, strict=True):
            known = {x: [100 * s[name] for s in rows if name in s] for x, rows in sorted(places.items())}
            known = {x: values for x, values in known.items() if values}
            mean = np.array([np.mean(v) for v in known.values()])
            sd = np.array([np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in known.values()])
            panel.errorbar(
                list(known), mean, sd, color=on_paper(colour), marker="o", markersize=4, capsize=2, label=label
            )
    for panel, name in zip(panels, names, strict=True):
        panel.set_xlabel(axis.name)
        panel.set_ylabel(label_of(name, c))
        panel.grid()
        if axis.logarithmic:
            panel.set_xscale("log")
    if any(lines):
        panels[-1].legend(frameon=False)
    return figure, f"Scores over {axis.name}", "Mean and one standard deviation of the trials at each value."


def pareto(c: Comparison) -> Drawn:
    """The first two objectives of every trial, and the front that no trial beats."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.values and len(t.values) > 1 and t.feasible]
    if len(c.study.directions) < 2 or len(trials) < 2:
        return None
    values = np.array([t.values for t in trials])
    front = pareto_front(values, c.study.directions)
    figure, panel = subplots(1, 1, (6.8, 3.9))
    (y, x), names = values[:, :2].T, [*c.study.objectives, "objective 1", "objective 2"]
    y = y * scale_of(names[0])
    panel.scatter(x[~front], y[~front], s=22, color=GREY, alpha=0.7, linewidths=0, label="beaten")
    order = np.argsort(x[front])
    if len(c.study.directions) == 2:
        panel.step(x[front][order], y[front][order], where="post" if c.study.directions[1] == "minimize" else "pre",
                   color=on_paper(ORANGE), linewidth=1.3)  # fmt: skip
    panel.scatter(x[front], y[front], s=40, color=VERMILLION, linewidths=0, label="Pareto front", zorder=3)
    if front.sum() <= 15:
        for place, height, trial in zip(x[front], y[front], np.array(trials)[front], strict=True):
            panel.annotate(str(trial.number), (place, height), xytext=(5, 4), textcoords="offset points", fontsize=7.5)
    if x.min() > 0 and x.max() >= 20 * x.min():
        panel.set_xscale("log")
    panel.set_xlabel(f"{names[1]} ({c.study.directions[1]})")
    panel.set_ylabel(objective_label(c))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.grid()
    return figure, "Pareto front", "Trials that no other one beats in every objective, by number."
