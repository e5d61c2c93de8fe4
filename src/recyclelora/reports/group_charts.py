"""Figures of a report that compare groups of seeds."""

from __future__ import annotations

import numpy as np

from recyclelora.drawing.heatmap import cells, heatmap
from recyclelora.drawing.style import BLUE, GREEN, GREY, MARKERS, PALETTE, VERMILLION
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.figure_style import (
    INK,
    Drawn,
    label_of,
    left_out,
    marked_name,
    on_paper,
    shown,
    subplots,
)
from recyclelora.reports.grouping import wrapped
from recyclelora.reports.groups import MEAN, SOURCE

VERDICTS = {"better": GREEN, "worse": VERMILLION}


def scores(c: Comparison) -> Drawn:
    """Mean and spread over seeds of every group."""
    groups = shown(c)
    if not groups:
        return None
    names = c.names[:2]
    size = (4.8 * len(names), 1.1 + 0.32 * len(groups))
    figure, panels = subplots(1, len(names), size, sharey=True, squeeze=False)
    panels = panels[0]
    for panel, name in zip(panels, names, strict=True):
        for row, group in enumerate(groups):
            values = [100 * v for v in group.values(name).values()]
            if values:
                mean, sd = 100 * (group.score(name)[0] or 0), 100 * (group.score(name)[1] or 0)
                colour = GREY if group is c.reference else BLUE
                panel.plot([mean - sd, mean + sd], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
                panel.scatter(values, [row] * len(values), s=13, color=colour, alpha=0.55, linewidths=0)
                panel.scatter([mean], [row], s=42, color=colour, zorder=3, linewidths=0)
        panel.set_xlabel(label_of(name, c))
        panel.grid(axis="x")
    panels[0].set_yticks(range(len(groups)), [marked_name(g, c) for g in groups])
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    caption = "Large dots: mean over seeds; small dots: single seeds; lines: one standard deviation."
    return figure, "Scores", caption + (" Grey: the reference." if len(groups) > 1 else "") + left_out(c)


def differences(c: Comparison) -> Drawn:
    """Paired differences to the reference with their intervals."""
    found = [d for d in c.differences if MEAN in d.scores and d.group in shown(c)]
    if not found or c.reference is None or c.study.race is not None:  # intervals for a number of seeds fixed beforehand
        return None
    figure, panel = subplots(1, 1, (8.2, 1.1 + 0.42 * len(found)))
    for row, d in enumerate(found):
        colour = VERDICTS.get(d.verdict, GREY)
        main = d.scores[MEAN]
        if main.low is not None and main.high is not None:
            panel.plot([100 * main.low, 100 * main.high], [row, row], color=colour, linewidth=2.4)
        panel.scatter([100 * main.mean], [row], s=44, color=colour, zorder=3, linewidths=0)
        if d.bootstrap is not None:
            low, high = d.bootstrap
            panel.plot([100 * low, 100 * high], [row + 0.24] * 2, color=colour, linewidth=5, alpha=0.35,
                       solid_capstyle="butt")  # fmt: skip
    panel.axvline(0, color=INK, linewidth=1)
    panel.set_yticks(range(len(found)), [wrapped(d.group.name) for d in found])
    panel.set_ylim(len(found) - 0.4, -0.6)
    tuned = " (tuned on targets)" if c.tuned_on_targets else ""
    panel.set_xlabel(f"{c.title(MEAN)} minus that of\n{c.reference.name}, points of mIoU{tuned}")
    panel.grid(axis="x")
    over = "/".join(sorted({d.bootstrap_over for d in found if d.bootstrap_over}))
    caption = "Lines: 95 % t-interval of the differences of paired seeds."
    caption += f" Pale bars: 95 % bootstrap interval over {over}." if over else ""
    caption += " Green and red only where no interval holds zero and both p are below 0.05."
    return figure, f"Difference to {c.reference.name}", caption + left_out(c)


def per_class(c: Comparison) -> Drawn:
    """IoU of every class minus the reference's, mean over targets and seeds."""
    if c.reference is None or c.reference.per_class is None:
        return None
    base = c.reference.per_class
    groups = [g for g in shown(c) if g is not c.reference and g.per_class is not None and len(g.per_class) == len(base)]
    if not groups:
        return None
    names = c.reference.runs[0].result["classes"]
    values = 100 * np.array([g.per_class - base for g in groups])
    figure, panel = subplots(1, 1, (0.5 * len(names) + 3.4, 0.34 * len(groups) + 1.6))
    limit = float(np.nanmax(np.abs(values), initial=1.0))
    shown_names = [wrapped(g.name) for g in groups]
    picture = heatmap(panel, values, shown_names, names, slanted=True, vmin=-limit, vmax=limit, cmap="RdBu")
    cells(picture, "{:+z.0f}" if limit >= 10 else "{:+z.1f}")
    figure.colorbar(picture, ax=panel, pad=0.01).set_label("points of IoU")
    title = f"IoU by class minus that of {c.reference.name}"
    return (
        figure,
        title,
        f"Mean over {'targets and ' if not c.alone else ''}seeds. Blue: better, red: worse." + left_out(c),
    )


def cost(c: Comparison) -> Drawn:
    """Score against trainable parameters of the backbone."""
    groups = [g for g in shown(c) if g.score(MEAN)[0] is not None]
    places = [g.about("params", "backbone_trainable") or 0 for g in groups]
    if len(set(places)) < 2:
        return None
    figure, panel = subplots(1, 1, (7.4, 3.8))
    smallest = min(p for p in places if p > 0)
    for index, (group, place) in enumerate(zip(groups, places, strict=True)):
        mean, sd = group.score(MEAN)
        again, colour = divmod(index, len(PALETTE))
        panel.errorbar(
            place, 100 * (mean or 0), 100 * (sd or 0), fmt=MARKERS[again], color=on_paper(PALETTE[colour]), capsize=3,
            markersize=6, label=wrapped(group.name, 30),
        )  # fmt: skip
    panel.set_xscale("symlog", linthresh=smallest / 2)
    powers = [10.0**n for n in range(12) if smallest / 2 <= 10**n <= 2 * max(places)]
    ticks = powers or sorted({smallest, max(places)})
    panel.set_xticks([0, *ticks], ["0", *(f"{p / 1e6:.3g} M" if p >= 1e6 else f"{p / 1e3:.3g} k" for p in ticks)])
    panel.minorticks_off()
    panel.margins(x=0.08, y=0.12)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.set_xlabel("trainable parameters of the backbone")
    panel.set_ylabel(label_of(MEAN, c))
    panel.grid()
    return figure, "Score and size", "Whiskers: one standard deviation over seeds." + left_out(c)


def training(c: Comparison) -> Drawn:
    """Source validation over the steps, also of runs that are not finished."""
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    names = {run.run.key: g.name for g in [*c.groups, *c.search] for run in g.runs}
    for run in c.study.runs:
        points = [(p["step"], 100 * p["miou/source_val"]) for p in run.points if "miou/source_val" in p]
        if len(points) > 1:
            curves.setdefault(names.get(run.key, "not finished" if run.result is None else ""), []).append(points)
    order = [name for name in [*(g.name for g in shown(c)), "not finished"] if name in curves][: len(PALETTE)]
    if not order:
        return None
    figure, panel = subplots(1, 1, (7.4, 3.4))
    for name, colour in zip(order, PALETTE, strict=False):
        by_step: dict[float, list[float]] = {}
        for points in curves[name]:
            for step, value in points:
                by_step.setdefault(step, []).append(value)
        steps = sorted(by_step)
        mean = np.array([np.mean(by_step[s]) for s in steps])
        panel.plot(steps, mean, color=on_paper(colour), label=wrapped(name), marker="o", markersize=3)
        sd = np.array([np.std(by_step[s], ddof=1) if len(by_step[s]) > 1 else 0.0 for s in steps])
        panel.fill_between(steps, mean - sd, mean + sd, color=on_paper(colour), alpha=0.15, linewidth=0)
    panel.set_xlabel("step")
    name = SOURCE if not c.alone else c.title(MEAN)
    panel.set_ylabel(f"{name}, mIoU in %")
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.grid()
    caption = "Mean over the runs that have come as far; bands: one standard deviation."
    return figure, f"{name.capitalize()} during training", caption
