"""Plots of a run: curves, the gap between source and targets, IoU by class, confusion. Data in, a figure out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from recyclelora.drawing.heatmap import cells, heatmap
from recyclelora.drawing.style import DASHES, GREY, PALETTE, plain_log_ticks
from recyclelora.evaluation.scores import ALONE_TITLE, SOURCE_TITLE, SOURCE_VAL
from recyclelora.runs.metrics_log import total_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = Mapping[str, float]
"""One line of ``metrics.jsonl``."""

MIOU = "miou/"
MEAN = "miou/mean"
SOURCE = f"miou/{SOURCE_VAL}"

MOST_NUMBERS = 45
"""Columns of a heat map beyond which its numbers could not be read."""


def curves(points: Sequence[Point], title: str = "") -> Figure:
    """Loss, learning rate, weight decay and speed over the steps."""
    figure, axes = _figure(1, 4, (15, 3.4), title)
    losses = [(point["step"], loss) for point in points if (loss := total_loss(point)) is not None]
    _line(axes[0], losses, color=PALETTE[0])
    if losses and min(loss for _, loss in losses) > 0:
        axes[0].set_yscale("log")
        plain_log_ticks(axes[0])
    axes[0].set_title("training loss" + (f", last {losses[-1][1]:.3g}" if losses else ""), fontsize=10)
    for axis, key, name in (
        (axes[1], "lr", "learning rate, first group"),
        (axes[2], "weight_decay", "weight decay, largest of the groups"),
    ):
        _line(axis, _known(points, key), color=PALETTE[1])
        axis.set_title(name, fontsize=10)
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axis.set_ylim(bottom=0)
    _line(axes[3], _known(points, "seconds_per_step"), color=PALETTE[2], label="a step")
    _line(axes[3], _known(points, "data_wait_seconds"), color=PALETTE[3], label="of it waiting for data")
    axes[3].set_title("seconds", fontsize=10)
    axes[3].set_ylim(bottom=0)
    if axes[3].lines:
        axes[3].legend(fontsize=8)
    return figure


def validation(points: Sequence[Point], title: str = "") -> Figure:
    """The validation's mIoU over the steps, of a run without targets."""
    figure, (axis,) = _figure(1, 1, (7, 4.6), title)
    _marked(axis, _percent(points, SOURCE), ALONE_TITLE, color="black", linewidth=2.6, markersize=6)
    axis.set_title("validation mIoU, %", fontsize=10)
    return figure


def domain_gap(points: Sequence[Point], title: str = "") -> Figure:
    """Left mIoU of source and targets over the steps, right how far each target lies below the source."""
    scored = [point for point in points if SOURCE in point]
    names = sorted({key for point in scored for key in point if key.startswith(MIOU)} - {SOURCE, MEAN})
    figure, (scores, gaps) = _figure(1, 2, (13, 4.6), title)
    source, mean = _percent(scored, SOURCE), _percent(scored, MEAN)
    for name, style in zip(names, _styles(), strict=False):
        label = name.removeprefix(MIOU)
        _marked(scores, _percent(scored, name), label, linewidth=1.2, markersize=4, **style)
        _marked(gaps, _below(scored, name), label, linewidth=1.2, markersize=4, **style)
    if len(source) == len(mean) and source:
        steps, high = zip(*source, strict=True)
        scores.fill_between(steps, [value for _, value in mean], high, color=GREY, alpha=0.18, linewidth=0)
    _marked(scores, source, SOURCE_TITLE, color="black", linewidth=2.6, markersize=6)
    bold = {"color": PALETTE[1], "linewidth": 2.6, "markersize": 6}
    _marked(scores, mean, "mean of targets", **bold)
    _marked(gaps, _below(scored, MEAN), "mean of targets", **bold)
    gaps.axhline(0, color="black", linewidth=1)
    scores.set_title("mIoU, %", fontsize=10)
    gaps.set_title("domain gap: source minus target, points of mIoU", fontsize=10)
    for axis in (scores, gaps):
        _name_ends(axis)
    return figure


def iou_bars(
    per_class: Mapping[str, Sequence[float | None]],
    names: Sequence[str],
    colours: Sequence[Sequence[int]],
    title: str = "",
) -> Figure:
    """IoU of every class: a wide bar for the mean over targets, a line for the source, a dot for each target.

    Without targets the bars are the validation's.
    """
    figure, (axis,) = _figure(1, 1, (min(0.62 * len(names), 24.0) + 2.5, 4.8), title)
    source = _in_percent(per_class[SOURCE_VAL]) if SOURCE_VAL in per_class else np.full(len(names), np.nan)
    rows = [_in_percent(row) for name, row in per_class.items() if name != SOURCE_VAL]
    targets = np.stack(rows) if rows else source[None]
    what = "mean of targets" if rows else ALONE_TITLE
    mean = np.array([column[~np.isnan(column)].mean() if (~np.isnan(column)).any() else np.nan for column in targets.T])
    places = np.arange(len(names))
    faces = np.asarray(colours, float) / 255
    axis.bar(places, np.nan_to_num(mean), 0.78, color=faces, edgecolor="black", linewidth=0.6, label=what)
    if rows:
        ends = (places - 0.44, places + 0.44)
        axis.hlines(source, *ends, color="white", linewidth=5.5, zorder=2.5)  # so that black is seen on dark bars
        axis.hlines(source, *ends, color="black", linewidth=2.5, zorder=2.6, label=SOURCE_TITLE)
        axis.plot([], [], "o", color="white", markeredgecolor="black", markersize=4, label="a target")
    for row in rows:
        axis.plot(places, row, "o", color="white", markeredgecolor="black", markersize=4, linewidth=0, zorder=3)
    for place, value in zip(places, mean, strict=True):
        text = "-" if np.isnan(value) else f"{value:.0f}"
        axis.text(place, -2, text, ha="center", va="top", fontsize=8, fontweight="bold")
    axis.set_xticks(places, names, rotation=35, ha="right", fontsize=9)
    axis.tick_params(axis="x", pad=12, length=0)
    axis.set_ylim(0, 100)
    axis.set_ylabel(f"IoU, % ({what} below its bar)", fontsize=9)
    axis.grid(axis="x", visible=False)
    axis.set_xlim(-0.7, len(names) - 0.3)
    axis.legend(fontsize=9, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def iou_table(per_class: Mapping[str, Sequence[float | None]], names: Sequence[str], title: str = "") -> Figure:
    """IoU (in percent) of every class (columns) on every dataset (rows); an empty cell is an absent class."""
    values = np.stack([_in_percent(row) for row in per_class.values()])
    figure, (axis,) = _figure(1, 1, (min(0.55 * len(names), 24.0) + 2.2, 0.42 * len(per_class) + 1.9), title)
    picture = _percentages(axis, values, list(per_class), names, cmap="viridis")
    axis.set_title("IoU by class, %", fontsize=10)
    figure.colorbar(picture, ax=axis, pad=0.01)
    return figure


def confusion(counts: Mapping[str, np.ndarray], names: Sequence[str], title: str = "") -> Figure:
    """Heat maps of confusion matrices (K, K): what percentage of each true class (rows) is taken for what (columns).

    Values below one percent are left out, and so are rows of classes that do not occur.
    """
    side = min(0.36 * len(names), 14.0) + 1.8
    figure, axes = _figure(1, len(counts), (side * len(counts) + 0.6, side + 0.3), title)
    for axis, (name, matrix) in zip(axes, counts.items(), strict=True):
        total = matrix.sum(1, keepdims=True)
        share = 100 * np.divide(matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0)
        picture = _percentages(axis, share, names, names, least=1.0, cmap="Blues")
        axis.set_title(name, fontsize=11)
        axis.set_xlabel("predicted", fontsize=10)
        axis.set_ylabel("ground truth", fontsize=10)
    figure.colorbar(picture, ax=axes, pad=0.01, shrink=0.8, label="% of the true class's pixels")
    return figure


def _figure(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, Any]:
    """A figure with a flat array of axes; without pyplot, which would keep it and knows screens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    if title:
        figure.suptitle(title, fontsize=11)
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _known(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    return [(point["step"], point[key]) for point in points if key in point]


def _percent(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    return [(step, 100 * value) for step, value in _known(points, key)]


def _below(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    """How far a score lies below the source's, in points."""
    return [(point["step"], 100 * (point[SOURCE] - point[key])) for point in points if key in point]


def _in_percent(row: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else 100 * value for value in row], float)


def _styles() -> Iterator[dict[str, str]]:
    """Colours and dashes that tell many targets apart; black and the mean's colour are taken."""
    colours = [colour for colour in PALETTE if colour not in ("#000000", PALETTE[1])]
    return ({"linestyle": dash, "color": colour} for dash, colour in itertools.product(DASHES, colours))


def _line(axis: Any, points: Sequence[tuple[float, float]], **style: Any) -> None:
    if points:
        dot = {"marker": "o"} if len(points) == 1 else {}  # a line of one point shows nothing
        axis.plot(*zip(*points, strict=True), **(dot | style))
    axis.set_xlabel("step", fontsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _marked(axis: Any, points: Sequence[tuple[float, float]], label: str, **style: Any) -> None:
    _line(axis, points, label=label, marker="o", **style)


def _name_ends(axis: Any) -> None:
    """A legend in the order of the lines' last values, which it tells."""
    ends = [(line.get_ydata()[-1], line) for line in axis.lines if line.get_label()[0] != "_"]
    last = sorted(ends, key=itemgetter(0))[::-1]
    if last:
        labels = [f"{line.get_label()}  {value:.1f}" for value, line in last]
        axis.legend(
            [line for _, line in last], labels, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
        )


def _percentages(
    axis: Any, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, least: float = 0.0, **options: Any
) -> Any:
    """A heat map from 0 to 100 with the numbers that are not below ``least``."""
    picture = heatmap(axis, values, rows, columns, slanted=True, fontsize=8, vmin=0, vmax=100, **options)
    if len(columns) <= MOST_NUMBERS:
        cells(picture, "{:.0f}", least=least)
    return picture
