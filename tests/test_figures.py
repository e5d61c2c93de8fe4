from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from recyclelora.figures import ClassColours, Shown, error_map, panel, save_curves, save_iou_heatmap, save_png
from recyclelora.metrics_log import total_loss

COLOURS = ClassColours(["road", "sky"], [[128, 64, 128], [70, 130, 180]])


def test_masks_get_their_colours_and_ignored_pixels_black():
    painted = COLOURS.paint(np.array([[0, 1, 255]], np.uint8))
    assert painted.tolist() == [[[128, 64, 128], [70, 130, 180], [0, 0, 0]]]


def test_errors_are_red_only_where_labelled_and_wrong():
    image = np.full((1, 3, 3), 90, np.uint8)
    view = error_map(image, np.array([[0, 0, 255]], np.uint8), np.array([[0, 1, 1]], np.uint8), 255)
    assert view.tolist() == [[[190, 190, 190], [214, 39, 40], [60, 60, 60]]]


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


def test_the_curve_of_the_loss_is_the_sum_of_whatever_losses_a_decoder_has():
    assert total_loss({"step": 3, "loss_ce": 2.0, "lr": 1e-4}) == 2.0
    assert total_loss({"loss_class": 1.0, "loss_mask": 0.5, "loss_dice": 0.25, "grad_norm": 9.0}) == 1.75
    assert total_loss({"step": 3, "miou/day": 0.5}) is None


def test_the_loss_is_drawn_for_mask_decoders_too(tmp_path: Path):
    drawn = {}
    for name, losses in {"none": {}, "masks": {"loss_mask": 2.0, "loss_dice": 1.0}}.items():
        points = [{"step": step, "time": 0, "lr": 1e-4, **losses} for step in (1, 2)]
        points.append({"step": 2, "time": 0, "miou/source_val": 0.5})
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
        save_curves(tmp_path / "metrics.jsonl", tmp_path / f"{name}.png")
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).astype(int)
        drawn[name] = (np.ptp(picture[:, : picture.shape[1] // 3], axis=-1) > 60).sum()  # coloured pixels: the line
    assert drawn["none"] == 0 < drawn["masks"]


def test_plots_are_written_from_the_files_of_a_run(tmp_path: Path):
    points = [{"step": 1, "time": 0, "loss_ce": 2.0, "lr": 1e-4}, {"step": 2, "time": 1, "miou/source_val": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    save_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    save_iou_heatmap({"day": [0.5, None], "night": [0.1, 0.9]}, COLOURS.names, tmp_path / "iou.png")
    for name in ("curves.png", "iou.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 1
