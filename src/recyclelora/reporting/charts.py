"""The figures of a report. Drawn once; text and axes take the reader's colour on the page, black on paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from recyclelora.analysis.style import BLUE, GREEN, GREY, ORANGE, PALETTE, VERMILLION
from recyclelora.reporting.comparison import MEAN, SOURCE, Comparison, Group
from recyclelora.reporting.grouping import value_text
from recyclelora.reporting.space import Axis, axes, importance, pareto_front, searched
from recyclelora.sweep.goals import is_miou

INK = "#1b1c1d"
"""Stands for the text's colour: the page replaces it by ``currentColor``."""
MOST_GROUPS = 25
"""As many fit into one figure; the tables have all."""
VERDICTS = {"better": GREEN, "worse": VERMILLION}


@dataclass(frozen=True)
class Chart:
    """One figure of the report, and what it says."""

    name: str
    title: str
    caption: str
    svg: str


def draw(c: Comparison, folder: Path) -> list[Chart]:
    """Every figure that the study has data for; PDF and PNG go to ``folder``."""
    makers: list[Callable[[Comparison], tuple[Any, str, str] | None]] = [
        scores, differences, per_class, cost, history, parallel, importances, rank_split, curve, pareto, training,
    ]  # fmt: skip
    charts = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in (maker.__name__ for maker in makers):  # the folder may hold pictures that are not ours
        for kind in (".pdf", ".png"):
            (folder / f"{name}{kind}").unlink(missing_ok=True)
    with _style():
        for maker in makers:
            found = maker(c)
            if found is not None:
                figure, title, caption = found
                charts.append(Chart(maker.__name__, title, caption, _write(figure, folder, maker.__name__)))
    return charts


# --- groups -----------------------------------------------------------------------------------------------------------


def scores(c: Comparison) -> tuple[Any, str, str] | None:
    """Mean and spread over seeds of every group."""
    groups = _shown(c)
    if not groups:
        return None
    figure, panels = _subplots(1, 2, (9.6, 1.1 + 0.32 * len(groups)), sharey=True)
    for panel, name in zip(panels, (MEAN, SOURCE), strict=True):
        for row, group in enumerate(groups):
            values = [100 * v for v in group.values(name).values()]
            if values:
                mean, sd = 100 * (group.score(name)[0] or 0), 100 * (group.score(name)[1] or 0)
                colour = GREY if group is c.reference else BLUE
                panel.plot([mean - sd, mean + sd], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
                panel.scatter(values, [row] * len(values), s=13, color=colour, alpha=0.55, linewidths=0)
                panel.scatter([mean], [row], s=42, color=colour, zorder=3, linewidths=0)
        panel.set_xlabel(_label(name, c))
        panel.grid(axis="x")
    panels[0].set_yticks(range(len(groups)), [_name(g, c) for g in groups])
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    caption = "Large dots: mean over seeds; small dots: single seeds; lines: one standard deviation."
    return figure, "Scores", caption + (" Grey: the reference." if len(groups) > 1 else "") + _left_out(c)


def differences(c: Comparison) -> tuple[Any, str, str] | None:
    """Paired differences to the reference with their intervals."""
    shown = [d for d in c.differences if MEAN in d.scores and d.group in _shown(c)]
    if not shown or c.reference is None:
        return None
    figure, panel = _subplots(1, 1, (8.2, 1.1 + 0.42 * len(shown)))
    for row, d in enumerate(shown):
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
    panel.set_yticks(range(len(shown)), [_wrapped(d.group.name) for d in shown])
    panel.set_ylim(len(shown) - 0.4, -0.6)
    tuned = " (tuned on targets)" if c.tuned_on_targets else ""
    panel.set_xlabel(f"{MEAN} minus that of\n{c.reference.name}, points of mIoU{tuned}")
    panel.grid(axis="x")
    over = "/".join(sorted({d.bootstrap_over for d in shown if d.bootstrap_over}))
    caption = "Lines: 95 % t-interval of the differences of paired seeds."
    caption += f" Pale bars: 95 % bootstrap interval over {over}." if over else ""
    caption += " Green and red only where no interval holds zero and Holm's p is below 0.05."
    return figure, f"Difference to {c.reference.name}", caption + _left_out(c)


def per_class(c: Comparison) -> tuple[Any, str, str] | None:
    """IoU of every class minus the reference's, mean over targets and seeds."""
    if c.reference is None or c.reference.per_class is None:
        return None
    base = c.reference.per_class
    groups = [
        g for g in _shown(c) if g is not c.reference and g.per_class is not None and len(g.per_class) == len(base)
    ]
    if not groups:
        return None
    names = c.reference.runs[0].result["classes"]
    values = 100 * np.array([g.per_class - base for g in groups])
    figure, panel = _subplots(1, 1, (0.5 * len(names) + 3.4, 0.34 * len(groups) + 1.6))
    limit = float(np.nanmax(np.abs(values), initial=1.0))
    picture = panel.imshow(values, vmin=-limit, vmax=limit, cmap="RdBu", aspect="auto")
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right")
    panel.set_yticks(range(len(groups)), [_wrapped(g.name) for g in groups])
    _cells(panel, values, limit, "{:+.0f}" if limit >= 10 else "{:+.1f}")
    figure.colorbar(picture, ax=panel, pad=0.01).set_label("points of IoU")
    title = f"IoU by class minus that of {c.reference.name}"
    return figure, title, "Mean over targets and seeds. Blue: better, red: worse." + _left_out(c)


def cost(c: Comparison) -> tuple[Any, str, str] | None:
    """Score against trainable parameters of the backbone."""
    groups = [g for g in _shown(c) if g.score(MEAN)[0] is not None]
    places = [g.about("params", "backbone_trainable") or 0 for g in groups]
    if len(set(places)) < 2:
        return None
    figure, panel = _subplots(1, 1, (7.4, 3.8))
    smallest = min(p for p in places if p > 0)
    for index, (group, place) in enumerate(zip(groups, places, strict=True)):
        mean, sd = group.score(MEAN)
        colour = PALETTE[index % len(PALETTE)]
        panel.errorbar(
            place, 100 * (mean or 0), 100 * (sd or 0), fmt="o", color=_paper(colour), capsize=3, markersize=6
        )
        if len(groups) <= 12:
            panel.annotate(
                group.name, (place, 100 * (mean or 0)), xytext=(7, 5), textcoords="offset points", fontsize=8
            )
    panel.set_xscale("symlog", linthresh=smallest / 2)
    panel.margins(x=0.22, y=0.12)
    panel.set_xlabel("trainable parameters of the backbone")
    panel.set_ylabel(_label(MEAN, c))
    panel.grid()
    return figure, "Score and size", "Whiskers: one standard deviation over seeds." + _left_out(c)


def training(c: Comparison) -> tuple[Any, str, str] | None:
    """Source validation over the steps, also of runs that are not finished."""
    curves: dict[str, list[list[tuple[float, float]]]] = {}
    names = {run.run.key: g.name for g in [*c.groups, *c.search] for run in g.runs}
    for run in c.study.runs:
        points = [(p["step"], 100 * p["miou/source_val"]) for p in run.points if "miou/source_val" in p]
        if len(points) > 1:
            curves.setdefault(names.get(run.key, "not finished"), []).append(points)
    order = [name for name in [*(g.name for g in _shown(c)), "not finished"] if name in curves][: len(PALETTE)]
    if not order:
        return None
    figure, panel = _subplots(1, 1, (7.4, 3.4))
    for name, colour in zip(order, PALETTE, strict=False):
        by_step: dict[float, list[float]] = {}
        for points in curves[name]:
            for step, value in points:
                by_step.setdefault(step, []).append(value)
        steps = sorted(by_step)
        mean = np.array([np.mean(by_step[s]) for s in steps])
        panel.plot(steps, mean, color=_paper(colour), label=_wrapped(name), marker="o", markersize=3)
        sd = np.array([np.std(by_step[s], ddof=1) if len(by_step[s]) > 1 else 0.0 for s in steps])
        panel.fill_between(steps, mean - sd, mean + sd, color=_paper(colour), alpha=0.15, linewidth=0)
    panel.set_xlabel("step")
    panel.set_ylabel("source validation, mIoU in %")
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.grid()
    caption = "Mean over the runs that have come as far; bands: one standard deviation."
    return figure, "Source validation during training", caption


# --- the search -------------------------------------------------------------------------------------------------------


def history(c: Comparison) -> tuple[Any, str, str] | None:
    """The first objective of every trial in its order, with the best so far."""
    trials = searched(c.study)
    known = [(t.number, t.values[0]) for t in trials if t.values and t.state == "complete" and t.feasible]
    if len(known) < 4 or not c.study.is_sweep:
        return None
    numbers, values = (np.array(column, float) for column in zip(*known, strict=True))
    best = np.maximum.accumulate(values) if c.study.directions[0] == "maximize" else np.minimum.accumulate(values)
    scale = _scale(c.study.objectives[0])
    figure, panel = _subplots(1, 1, (7.4, 3.2))
    panel.scatter(numbers, scale * values, s=22, color=BLUE, alpha=0.7, linewidths=0, label="trial")
    panel.step(numbers, scale * best, where="post", color=VERMILLION, label="best so far")
    low = scale * values.min() - 0.06 * scale * (np.ptp(values) or 1)
    marked = [(state, [t.number for t in trials if t.state == state]) for state in ("failed", "pruned")]
    marked.append(("breaks a constraint", [t.number for t in trials if not t.feasible]))
    for (state, places), marker, colour in zip(marked, "x|+", (VERMILLION, GREY, GREY), strict=True):
        if places:
            panel.scatter(places, [low] * len(places), marker=marker, s=30, color=colour, label=state)
    panel.set_xlabel("trial")
    panel.set_ylabel(_objective_label(c))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.grid()
    missed = any(t.state in ("failed", "pruned") for t in trials)
    return figure, "Optimisation history", "Failed and pruned trials stand at the lower edge." if missed else ""


def parallel(c: Comparison) -> tuple[Any, str, str] | None:
    """Every finished trial as a line over all parameters, coloured by the first objective."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.values]
    found = axes(trials)[:10]
    if len(trials) < 3 or len(found) < 2 or not c.study.is_sweep:
        return None
    values = np.array([t.values[0] for t in trials if t.values])
    scale = _scale(c.study.objectives[0])
    result = Axis(_objective_label(c), "", [float(scale * v) for v in values])
    columns = [*found, result]
    places = np.array([axis.positions() for axis in columns])
    figure, panel = _subplots(1, 1, (min(11.5, 1.7 * len(columns) + 1), 3.8))
    shade = mpl.colormaps["viridis"]
    spread = np.ptp(values) or 1.0
    rng = np.random.default_rng(0)
    apart = np.array([[0.0 if axis.numeric and len(axis.levels) > 12 else 0.012] for axis in columns])
    jitter = apart * rng.uniform(-1, 1, places.shape)  # so that lines through equal choices stay visible
    good = values if c.study.directions[0] == "maximize" else -values
    order = np.argsort(good)
    colours = shade((values[order] - values.min()) / spread)
    colours[:, 3] = 0.25 + 0.65 * (good[order] - good.min()) / spread
    lines = [np.column_stack([np.arange(len(columns)), line]) for line in (places + jitter).T[order]]
    panel.add_collection(mpl.collections.LineCollection(lines, colors=colours, linewidths=1.3))
    panel.set_xlim(-0.1, len(columns) - 0.6)
    box = {"boxstyle": "round,pad=0.12", "facecolor": "#ffffffcc", "edgecolor": "none"}
    for column, axis in enumerate(columns):
        panel.axvline(column, color=INK, linewidth=0.8)
        for place, text in _ticks(axis):
            panel.annotate(
                text, (column, place), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center",
                bbox=box, color="#000000",
            )  # fmt: skip
    panel.set_xticks(range(len(columns)), [a.name for a in columns])
    panel.set_yticks([])
    panel.set_ylim(-0.06, 1.06)
    for side in ("left", "bottom"):
        panel.spines[side].set_visible(False)
    bar = mpl.cm.ScalarMappable(mpl.colors.Normalize(scale * values.min(), scale * values.max()), shade)
    figure.colorbar(bar, ax=panel, pad=0.08).set_label(_objective_label(c))
    left = "" if len(axes(trials)) <= 10 else " The first ten parameters."
    return figure, "Parallel coordinates", f"One line a finished trial; the colour is its objective.{left}"


def importances(c: Comparison) -> tuple[Any, str, str] | None:
    """How much each parameter decides the first objective."""
    trials = searched(c.study)
    method, found = importance(trials, axes(trials))
    if len(found) < 2 or not c.study.is_sweep:
        return None
    ordered = sorted(found.items(), key=lambda item: item[1])
    figure, panel = _subplots(1, 1, (6.4, 0.9 + 0.34 * len(ordered)))
    panel.barh([name for name, _ in ordered], [value for _, value in ordered], color=BLUE, height=0.62)
    panel.set_xlabel(f"importance for {c.study.objectives[0]} ({method})")
    panel.set_xlim(0, max(1e-9, *found.values()) * 1.12)
    panel.grid(axis="x")
    fanova = "Share of the objective's variance over the search space."
    plain = "Strength between 0 and 1 of the relation between a parameter and the objective, each parameter alone."
    return figure, "Importance of parameters", fanova if method == "fANOVA" else plain


def rank_split(c: Comparison) -> tuple[Any, str, str] | None:
    """Mean objective for each pair of ranks."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.values]
    by_key = {axis.key: axis for axis in axes(trials)}
    if not {"adapter.main.rank", "adapter.sub.rank"} <= by_key.keys():
        return None
    main, sub = by_key["adapter.main.rank"], by_key["adapter.sub.rank"]
    scale = _scale(c.study.objectives[0])
    table = np.full((len(sub.levels), len(main.levels)), np.nan)
    for row, low in enumerate(sub.levels):
        for column, high in enumerate(main.levels):
            cell = [t.values[0] for t, m, s in zip(trials, main.values, sub.values, strict=True)
                    if t.values and m == high and s == low]  # fmt: skip
            table[row, column] = scale * np.mean(cell) if cell else np.nan
    figure, panel = _subplots(1, 1, (1.7 + 0.75 * len(main.levels), 1.4 + 0.5 * len(sub.levels)))
    picture = panel.imshow(table, cmap="viridis", aspect="auto", origin="lower")
    panel.set_xticks(range(len(main.levels)), main.levels)
    panel.set_yticks(range(len(sub.levels)), sub.levels)
    panel.set_xlabel("rank of the main adapter")
    panel.set_ylabel("rank of the sub adapter")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            colour = "#000000" if value > middle else "#ffffff"
            panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(picture, ax=panel, pad=0.02).set_label(_objective_label(c))
    return figure, "Rank split", "Mean over the trials of each cell; empty cells were not tried."


def curve(c: Comparison) -> tuple[Any, str, str] | None:
    """Scores over the only number that varies."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.runs]
    found = axes(trials)
    numeric = [axis for axis in found if axis.numeric and len(axis.levels) > 2]
    if len(numeric) != 1 or len(found) > 2:
        return None
    (axis,) = numeric
    others = [a for a in found if a is not axis]
    figure, panels = _subplots(1, 2, (9.6, 3.4))
    scored = {id(s.run): s for g in [*c.groups, *c.search] for s in g.runs}
    lines: dict[str, dict[float, list[dict[str, float]]]] = {}
    for index, trial in enumerate(trials):
        label = ", ".join(value_text(a.values[index]) for a in others)
        for run in trial.runs:
            if id(run) in scored and axis.values[index] is not None:
                lines.setdefault(label, {}).setdefault(axis.values[index], []).append(scored[id(run)].scores)
    for (label, places), colour in zip(lines.items(), PALETTE, strict=False):
        for panel, name in zip(panels, (MEAN, SOURCE), strict=True):
            known = {x: [100 * s[name] for s in rows if name in s] for x, rows in sorted(places.items())}
            known = {x: values for x, values in known.items() if values}
            mean = np.array([np.mean(v) for v in known.values()])
            sd = np.array([np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in known.values()])
            panel.errorbar(
                list(known), mean, sd, color=_paper(colour), marker="o", markersize=4, capsize=2, label=label
            )
    for panel, name in zip(panels, (MEAN, SOURCE), strict=True):
        panel.set_xlabel(axis.name)
        panel.set_ylabel(_label(name, c))
        panel.grid()
        if axis.logarithmic:
            panel.set_xscale("log")
    if any(lines):
        panels[1].legend(frameon=False)
    return figure, f"Scores over {axis.name}", "Mean and one standard deviation of the trials at each value."


def pareto(c: Comparison) -> tuple[Any, str, str] | None:
    """The first two objectives of every trial, and the front that no trial beats."""
    trials = [t for t in searched(c.study) if t.state == "complete" and t.values and len(t.values) > 1 and t.feasible]
    if len(c.study.directions) < 2 or len(trials) < 2:
        return None
    values = np.array([t.values for t in trials])
    front = pareto_front(values, c.study.directions)
    figure, panel = _subplots(1, 1, (6.8, 3.9))
    (y, x), names = values[:, :2].T, [*c.study.objectives, "objective 1", "objective 2"]
    y = y * _scale(names[0])
    panel.scatter(x[~front], y[~front], s=22, color=GREY, alpha=0.7, linewidths=0, label="beaten")
    order = np.argsort(x[front])
    if len(c.study.directions) == 2:
        panel.step(x[front][order], y[front][order], where="post" if c.study.directions[1] == "minimize" else "pre",
                   color=_paper(ORANGE), linewidth=1.3)  # fmt: skip
    panel.scatter(x[front], y[front], s=40, color=VERMILLION, linewidths=0, label="Pareto front", zorder=3)
    if front.sum() <= 15:
        for place, height, trial in zip(x[front], y[front], np.array(trials)[front], strict=True):
            panel.annotate(str(trial.number), (place, height), xytext=(5, 4), textcoords="offset points", fontsize=7.5)
    if x.min() > 0 and x.max() >= 20 * x.min():
        panel.set_xscale("log")
    panel.set_xlabel(f"{names[1]} ({c.study.directions[1]})")
    panel.set_ylabel(_objective_label(c))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    panel.grid()
    return figure, "Pareto front", "Trials that no other one beats in every objective, by number."


# --- shared -----------------------------------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:

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


def _subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", **options)


def _write(figure: Any, folder: Path, name: str) -> str:
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


def _shown(c: Comparison) -> list[Group]:
    """The first groups, and always the reference."""
    first = c.groups[:MOST_GROUPS]
    return first if c.reference is None or c.reference in first else [*first[:-1], c.reference]


def _left_out(c: Comparison) -> str:
    return f" The first {MOST_GROUPS} of {len(c.groups)} groups." if len(c.groups) > MOST_GROUPS else ""


def _name(group: Group, c: Comparison) -> str:
    return _wrapped(group.name) + (" *" if group is c.reference and len(c.groups) > 1 else "")


def _wrapped(name: str, width: int = 42) -> str:
    """A name on several lines, broken at its commas."""
    lines = [""]
    for part in name.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def _paper(colour: str) -> str:
    """Black would vanish on a dark page."""
    return INK if colour == "#000000" else colour


def _cells(panel: Any, values: np.ndarray, limit: float, form: str) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "#ffffff" if abs(value) > 0.6 * limit else "#000000"
            panel.text(column, row, form.format(value), ha="center", va="center", fontsize=7, color=colour)


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    """Where which values stand on an axis from 0 to 1; of many numbers five."""
    if axis.numeric and len(axis.levels) > 8:
        low, high = axis.levels[0], axis.levels[-1]
        places = np.linspace(0, 1, 5)
        values = low * (high / low) ** places if axis.logarithmic else low + (high - low) * places
        return [(float(p), f"{v:.3g}") for p, v in zip(places, values, strict=True)]
    known = {value_text(v): p for v, p in zip(axis.values, axis.positions(), strict=True) if v is not None}
    return [(float(place), text) for text, place in known.items()]


def _scale(objective: str) -> float:
    """mIoU is shown in percent."""
    return 100.0 if is_miou(objective) else 1.0


def _objective_label(c: Comparison) -> str:
    name = c.study.objectives[0]
    known = {"source_val": SOURCE, "miou.source_val": SOURCE, "target_mean": MEAN, "miou.mean": MEAN}
    if is_miou(name):
        return _label(known.get(name, name), c)
    return f"{name}\n(tuned on targets)" if c.tuned_on_targets else name


def _label(name: str, c: Comparison) -> str:
    return f"{name}, mIoU in %" + ("\n(tuned on targets)" if c.tuned_on_targets else "")
