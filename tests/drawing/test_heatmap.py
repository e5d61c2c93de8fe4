from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from recyclelora.drawing.heatmap import cells, heatmap
from recyclelora.drawing.style import png

VALUES = np.array([[0.0, 30.0], [np.nan, 100.0], [0.4, 60.0]])


def drawn(colours: str = "viridis", **options):
    axis = Figure().subplots()
    return heatmap(axis, VALUES, ["a", "b", "c"], ["x", "y"], cmap=colours, vmin=0, vmax=100, **options)


def written(picture) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in picture.axes.texts}


def test_every_cell_has_its_number_and_an_unknown_one_stays_empty():
    picture = drawn()
    cells(picture, "{:.0f}")
    assert written(picture) == {(0, 0): "0", (1, 0): "30", (1, 1): "100", (0, 2): "0", (1, 2): "60"}
    axis = picture.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["x", "y"]


def test_small_numbers_are_left_out_and_others_stand_beside():
    picture = drawn()
    cells(picture, "{:.0f} ({:.1f})", VALUES / 10, least=1)
    assert written(picture) == {(1, 0): "30 (3.0)", (1, 1): "100 (10.0)", (1, 2): "60 (6.0)"}


@pytest.mark.parametrize(("colours", "dark", "bright"), [("viridis", 0.0, 100.0), ("Blues", 100.0, 0.0)])
def test_numbers_are_white_on_dark_and_black_on_bright_cells(colours: str, dark: float, bright: float):
    picture = drawn(colours)
    cells(picture, "{}")
    colour = {float(text.get_text()): text.get_color() for text in picture.axes.texts}
    assert (colour[dark], colour[bright]) == ("#ffffff", "#000000")


def test_it_is_a_picture():
    assert png(drawn(slanted=True, fontsize=8).axes.figure).startswith(b"\x89PNG")
