from __future__ import annotations

import io

import numpy as np
from PIL import Image

from recyclelora.drawing.style import png
from recyclelora.runs.metrics_log import total_loss
from recyclelora.training import run_plots as plots

POINTS = [
    {"step": 1, "time": 0, "loss_mask": 2.0, "loss_dice": 1.0, "lr": 1e-4, "weight_decay": 0.05, "seconds_per_step": 2},
    {"step": 2, "time": 1, "loss_mask": 1.0, "loss_dice": 0.5, "lr": 5e-5, "weight_decay": 0.01, "seconds_per_step": 2},
    {"step": 1, "time": 0, "miou/source_val": 0.5, "miou/night": 0.2, "miou/fog": 0.4, "miou/mean": 0.3},
    {"step": 2, "time": 1, "miou/source_val": 0.6, "miou/night": 0.3, "miou/fog": 0.5, "miou/mean": 0.4},
]


def lines(axis) -> dict[str, list[tuple[float, float]]]:
    """Drawn lines by label."""
    return {
        line.get_label(): [(float(x), round(float(y), 6)) for x, y in line.get_xydata()]
        for line in axis.lines
        if len(line.get_xdata()) and line.get_label()[0] != "_"
    }


def test_the_curve_of_the_loss_is_the_sum_of_whatever_losses_a_decoder_has():
    assert total_loss({"step": 3, "loss_ce": 2.0, "lr": 1e-4}) == 2.0
    assert total_loss({"loss_class": 1.0, "loss_mask": 0.5, "loss_dice": 0.25, "grad_norm": 9.0}) == 1.75
    assert total_loss({"step": 3, "miou/day": 0.5}) is None


def test_curves_show_loss_rate_decay_and_speed():
    loss, rate, decay, seconds = plots.curves(POINTS).axes
    drawn = [axis.lines[0].get_xydata().tolist() for axis in (loss, rate, decay, seconds)]
    assert drawn == [
        [[1, 3.0], [2, 1.5]], [[1, 1e-4], [2, 5e-5]], [[1, 0.05], [2, 0.01]], [[1, 2], [2, 2]],
    ]  # fmt: skip
    assert loss.get_yscale() == "log" and "1.5" in loss.get_title()


def test_the_gap_is_source_minus_target_in_points():
    scores, gaps = plots.domain_gap(POINTS).axes
    assert lines(scores) == {
        "source validation": [(1, 50), (2, 60)], "mean of targets": [(1, 30), (2, 40)],
        "night": [(1, 20), (2, 30)], "fog": [(1, 40), (2, 50)],
    }  # fmt: skip
    assert lines(gaps) == {
        "mean of targets": [(1, 20), (2, 20)],
        "night": [(1, 30), (2, 30)],
        "fog": [(1, 10), (2, 10)],
    }
    assert [text.get_text() for text in gaps.get_legend().get_texts()] == [
        "night  30.0", "mean of targets  20.0", "fog  10.0",
    ]  # fmt: skip


def test_the_validation_alone_has_a_plot_of_its_own():
    (axis,) = plots.validation([{"step": 1, "miou/source_val": 0.5}, {"step": 2, "lr": 1.0}]).axes
    assert lines(axis) == {"validation": [(1, 50)]}
    assert all(tick == round(tick) for tick in axis.get_xticks())


def test_bars_stand_for_the_mean_of_targets_and_lines_for_the_source():
    per_class = {"source_val": [0.9, None], "day": [0.8, None], "night": [0.4, 0.2]}
    colours = [[128, 64, 128], [70, 130, 180]]
    (axis,) = plots.iou_bars(per_class, ["road", "sky"], colours).axes
    bars = axis.patches[:2]
    assert [round(bar.get_height(), 6) for bar in bars] == [60, 20]
    assert [round(255 * part) for part in bars[0].get_facecolor()[:3]] == colours[0]
    heights = [path.vertices[:, 1].tolist() for path in axis.collections[0].get_paths()]
    assert heights[0] == [90, 90] and np.isnan(heights[1]).all()


def test_confusion_is_the_share_of_the_true_class_and_absent_classes_are_empty():
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 0, 1000]])
    axis = plots.confusion({"source": counts}, ["a", "b", "c"]).axes[0]
    shown = np.ma.filled(axis.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown, [[75, 25, 0], [np.nan] * 3, [0, 0, 100]])
    assert [text.get_text() for text in axis.texts] == ["75", "25", "100"]


def test_every_plot_is_a_png_also_of_a_run_that_has_just_begun_and_of_many_classes():
    many = [f"thing {index}" for index in range(60)]
    table = {"source_val": [0.5] * 60, "new": [None] * 60}
    for figure in (
        plots.curves([]), plots.validation([]), plots.domain_gap([]), plots.domain_gap(POINTS[2:3]),
        plots.iou_bars(table, many, [[9, 9, 9]] * 60), plots.iou_table(table, many),
        plots.confusion({"source": np.eye(60), "targets": np.eye(60)}, many),
    ):  # fmt: skip
        picture = Image.open(io.BytesIO(png(figure)))
        assert max(picture.size) < 5000
        assert np.asarray(picture.convert("L")).std() > 1


def test_a_curve_of_one_point_is_a_dot():
    point = {"step": 4, "loss": 2.0, "lr": 1e-3, "weight_decay": 0.05, "seconds_per_step": 2.0}
    markers = [line.get_marker() for axis in plots.curves([point]).axes for line in axis.lines]
    assert markers == ["o"] * 4
    longer = [point, point | {"step": 5}]
    assert {line.get_marker() for axis in plots.curves(longer).axes for line in axis.lines} == {"None"}
