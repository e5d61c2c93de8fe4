from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from conftest import compose_config
from PIL import Image

from recyclelora.drawing.sheets import (
    ERROR_COLOURS,
    ClassColours,
    Shown,
    comparison,
    crop_sheet,
    error_colour,
    error_map,
    panel,
    png,
    save_png,
    wrong_share,
)

COLOURS = ClassColours(["road", "sky"], [[128, 64, 128], [70, 130, 180]])


def test_masks_get_their_colours_and_ignored_pixels_black():
    painted = COLOURS.paint(np.array([[0, 1, 255]], np.uint8))
    assert painted.tolist() == [[[128, 64, 128], [70, 130, 180], [0, 0, 0]]]


def test_errors_are_red_only_where_labelled_and_wrong():
    image = np.full((1, 3, 3), 90, np.uint8)
    view = error_map(image, np.array([[0, 0, 255]], np.uint8), np.array([[0, 1, 1]], np.uint8), COLOURS)
    assert view.tolist() == [[[190, 190, 190], [214, 39, 40], [60, 60, 60]]]


def test_the_colour_of_errors_is_far_from_that_of_every_class():
    data = compose_config(Path("/nowhere"), "backbone=vit_tiny_test", "data=gta2city").data
    classes = np.array(data.classes.colours, float)
    assert error_colour(classes) == (0, 229, 238)
    assert np.linalg.norm(classes - error_colour(classes), axis=1).min() >= 100
    everything = np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3), -1).reshape(-1, 3)
    assert error_colour(everything) in ERROR_COLOURS


def test_panel_shows_four_views_of_every_row_and_a_legend(tmp_path: Path):
    image, ids = np.full((40, 80, 3), 90, np.uint8), np.ones((40, 80), np.uint8)
    shown = [Shown("night", image, ids, 1 - ids)] * 2
    picture = panel(shown, COLOURS, width=160)
    assert picture.shape[1] == 4 * 160 + 3 * 4
    row = 26 + 4 + 40  # the middle of the first row of views
    assert picture[row, 164 + 80].tolist() == [70, 130, 180]
    assert picture[row, 2 * 164 + 80].tolist() == [128, 64, 128]
    assert picture[row, 3 * 164 + 80].tolist() == [214, 39, 40]
    assert [128, 64, 128] in picture[-20:].reshape(-1, 3).tolist()  # the legend's patch
    save_png(picture, tmp_path / "deep" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "deep" / "a.png")), picture)


def test_a_comparison_shows_each_method_beside_the_truth_and_nothing_where_there_is_none():
    image, truth = np.full((40, 80, 3), 90, np.uint8), np.ones((40, 80), np.uint8)
    truth[:, 40:] = 255
    said = [("30 %", np.zeros_like(truth)), ("60 %", np.ones_like(truth))]
    picture = comparison([("night", image, truth, said)], ["frozen", "RecycleLoRA"], COLOURS, width=160, title="seen")
    assert picture.shape[1] == 4 * 160 + 3 * 4
    row = picture[26 + 26 + 4 + 60]  # below the labels in the corners
    assert row[40].tolist() == [90, 90, 90]
    for column, colour in ((1, [70, 130, 180]), (2, [128, 64, 128]), (3, [70, 130, 180])):
        assert row[column * 164 + 40].tolist() == colour and row[column * 164 + 120].tolist() == [0, 0, 0]


def test_the_share_of_wrong_pixels_counts_labelled_ones_only():
    truth, prediction = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8)
    assert wrong_share(truth, prediction, 255) == 1 / 3
    assert wrong_share(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), 255) == 0


def test_a_sheet_shows_every_crop_beside_itself_under_its_labels():
    crops = [(np.full((20, 40, 3), 100, np.uint8), np.full((20, 40), index % 2, np.uint8)) for index in range(3)]
    crops[2][1][:] = 255
    sheet = crop_sheet(crops, COLOURS, columns=2, title="crops", width=40)
    assert sheet.shape[1] == 2 * 80 + 4
    views = [sheet[26 + 10, x].tolist() for x in (20, 60, 84 + 20, 84 + 60)]
    assert views[0] == views[2] == [100, 100, 100]
    assert views[1][0] > views[3][0]  # road is redder than sky
    assert sheet[26 + 24 + 10, 60].tolist() == [33, 33, 33]  # ignored: dark
    assert sheet[26 + 24 + 10, 84 + 60].tolist() == [255, 255, 255]  # no fourth crop


def test_png_gives_back_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), picture)
