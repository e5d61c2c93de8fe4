"""A matrix as a picture: a colour and a number in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def heatmap(
    axis: Any, values: np.ndarray, rows: Sequence[object], columns: Sequence[object], *, slanted: bool = False,
    fontsize: float | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Draw a matrix (rows, columns) with its names along both axes; NaN stays empty.

    Args:
        axis: where
        values: a number for each cell
        rows: their names
        columns: theirs
        slanted: writes long names of columns side by side
        fontsize: of the names; None leaves it
        options: of ``imshow``: colours, limits, which row is first

    Returns:
        the picture, for `cells` and a colour bar.
    """
    picture = axis.imshow(values, aspect="auto", **options)
    size: dict[str, Any] = {} if fontsize is None else {"fontsize": fontsize}
    slant: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axis.set_xticks(range(len(columns)), columns, **size, **slant)
    axis.set_yticks(range(len(rows)), rows, **size)
    axis.grid(visible=False)
    return picture


def cells(picture: Any, form: str, *beside: np.ndarray, fontsize: float = 7, least: float = -np.inf) -> None:
    """Write a heat map's numbers, black or white, whichever is read better on the cell's colour.

    Args:
        picture: of `heatmap`
        form: for the number, and for those of ``beside`` behind it
        beside: matrices of more numbers for each cell
        fontsize: of the numbers
        least: smaller numbers are left out
    """
    values: np.ndarray = np.ma.filled(np.ma.asarray(picture.get_array(), float), np.nan)
    for place, value in np.ndenumerate(values):
        if value >= least:
            red, green, blue, _ = picture.cmap(picture.norm(value))
            colour = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"
            text = form.format(value, *(matrix[place] for matrix in beside))
            picture.axes.text(*place[::-1], text, ha="center", va="center", fontsize=fontsize, color=colour)
