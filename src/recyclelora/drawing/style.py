"""How every figure looks: sizes, fonts and colours that colour-blind readers tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito, "Color Universal Design" (2008), without the yellow that vanishes on white.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, "#000000")
GREY = "#8C8C8C"
DASHES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

STAGE_COLOURS = {"init": GREY, "trained": BLUE, "update": VERMILLION}
STAGE_LABELS = {"init": "$B_0A_0$ (start)", "trained": "$BA$ (trained)", "update": "$BA - B_0A_0$ (update)"}
SIDE_LABELS = {"b": "column space of B", "a": "row space of A"}
SIDES_OF_W = {"left": "output side", "right": "input side"}
SIDES_OF_DATA = {
    "moments": "inputs $E[xx^T]$",
    "gradient_left": "gradient, output side",
    "gradient_right": "gradient, input side",
}
DIRECTIONS = "singular directions of $W_0$, largest first (%)"

PANEL = (3.1, 2.5)
"""Inches of one panel of a grid."""


def line(index: int) -> tuple[str, str]:
    """Colour and dashes of the line of a given number; no two of the first 28 look alike."""
    turn, place = divmod(index, len(PALETTE))
    return PALETTE[place], DASHES[(place + turn) % len(DASHES)]


def grid(
    rows: int, columns: int, title: str, about: str = "", panel: tuple[float, float] = PANEL, **options: Any
) -> tuple[Any, Any]:
    """A figure with a title, a line about the run, and (rows, columns) panels; the axes are a two-dimensional array."""
    import matplotlib as mpl
    from matplotlib import pyplot

    mpl.use("Agg")

    size = (max(panel[0] * columns + 0.5, 7.0), panel[1] * rows + 1.0)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)
    figure.suptitle(f"{title}\n{about}" if about else title, fontsize=11, linespacing=1.4)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, axes


def heading(axis: Any, text: str, detail: str = "") -> None:
    """A panel's title, and below it, smaller, what is worth knowing in numbers."""
    axis.set_title(f"{text}\n{detail}" if detail else text, fontsize=8.5 if detail else 9.5)


def colour_bar(figure: Any, picture: Any, axes: Any, label: str = "", **options: Any) -> None:
    """A colour bar beside one or several axes."""
    bar = figure.colorbar(picture, ax=axes, pad=0.015, **options)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def label_grid(axes: Any, x: str, y: Sequence[str]) -> None:
    """The x label below the last row, one y label for each row."""
    for axis in axes[-1]:
        axis.set_xlabel(x, fontsize=9)
    for axis, text in zip(axes[:, 0], y, strict=True):
        axis.set_ylabel(text, fontsize=9)


def whole_numbers(axis: Any) -> None:
    """Ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def plain_log_ticks(axis: Any) -> None:
    """Ticks 1, 2, 5, 10 with plain numbers on a logarithmic y axis of few decades; powers of ten on one of many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    axis.yaxis.set_minor_formatter(NullFormatter())
    if high < 200 * low:
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))


def png(figure: Any, dpi: int = 110) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def save(figure: Any, path: Path, axes: Any = None) -> None:
    """Write a PNG and let go of the figure; with ``axes`` one legend below all these panels, each label once."""
    from matplotlib import pyplot

    panels = () if axes is None else axes.flat
    found = {label: handle for axis in panels for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if found:
        figure.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5), fontsize=9,
            frameon=False,
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure, 120))
    pyplot.close(figure)
