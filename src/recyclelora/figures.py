"""Pictures for people: predictions beside ground truth, curves, and IoU by class and dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recyclelora.metrics_log import total_loss

TITLE_HEIGHT = 26
GAP = 4
LEGEND_COLUMNS = 10
HEADS = ("image", "ground truth", "prediction", "errors")


@dataclass(frozen=True)
class ClassColours:
    """Names and RGB colours by train id."""

    names: Sequence[str]
    colours: Sequence[Sequence[int]]
    ignore_index: int = 255

    def paint(self, ids: np.ndarray) -> np.ndarray:
        """Colour an id mask (H, W) as uint8 RGB (H, W, 3); what is ignored is black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.colours)] = np.asarray(self.colours, np.uint8)
        table[self.ignore_index] = 0
        painted: np.ndarray = table[ids]
        return painted

    def overlay(self, image: np.ndarray, ids: np.ndarray, opacity: float = 0.55) -> np.ndarray:
        """An image (H, W, 3) with its mask's colours over it."""
        return cv2.addWeighted(image, 1 - opacity, self.paint(ids), opacity, 0)


@dataclass(frozen=True)
class Shown:
    """One row of a panel."""

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    """None where there are no labels"""
    prediction: np.ndarray


def panel(rows: Sequence[Shown], colours: ClassColours, width: int = 420) -> np.ndarray:
    """Rows of image, ground truth, prediction and errors under their titles, with a legend: uint8 RGB."""
    lines = [_line([_title(head, width) for head in HEADS])]
    for row in rows:
        truth = np.full_like(row.prediction, colours.ignore_index) if row.truth is None else row.truth
        error = error_map(row.image, truth, row.prediction, colours.ignore_index)
        views = [row.image, colours.paint(truth), colours.paint(row.prediction), error]
        cells = [_fitted(view, width, nearest=0 < index < 3) for index, view in enumerate(views)]
        cells[0] = _labelled(cells[0], row.title)
        if row.truth is None:
            cells[1] = _labelled(cells[1], "no labels")
            overlay = _fitted(colours.overlay(row.image, row.prediction), width, nearest=False)
            cells[3] = _labelled(overlay, "overlay")
        lines.append(_line(cells))
    lines.append(_legend(colours, lines[0].shape[1]))
    return np.concatenate(lines)


def panel_columns(picture: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """The four columns of a `panel` without titles and legend, by their titles."""
    width = (picture.shape[1] - (len(HEADS) - 1) * GAP) // len(HEADS)
    rows = picture[TITLE_HEIGHT + GAP : picture.shape[0] - _legend_height(num_classes) - GAP]
    return {head: rows[:, index * (width + GAP) :][:, :width] for index, head in enumerate(HEADS)}


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, ignore_index: int) -> np.ndarray:
    """The image in pale grey, wrong pixels red, unlabelled ones dark."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    view = np.repeat((160 + grey[..., None] // 3).astype(np.uint8), 3, axis=-1)
    view[(truth != prediction) & (truth != ignore_index)] = (214, 39, 40)
    view[truth == ignore_index] = 60
    return view


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) or grey (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, optimize=False)


def save_curves(metrics_path: Path, path: Path) -> None:
    """Loss, learning rate and mIoU of every dataset over the steps, read from ``metrics.jsonl``."""
    points = [json.loads(line) for line in metrics_path.read_text(encoding="utf-8").splitlines()]
    figure, axes = _subplots(1, 3, (13, 3.8))
    totals = [{"step": point["step"], "loss": loss} for point in points if (loss := total_loss(point)) is not None]
    _plot(axes[0], totals, "loss", "training loss", log=True)
    _plot(axes[1], points, "lr", "learning rate (first group)")
    for name in sorted({key for point in points for key in point if key.startswith("miou/")}):
        style: dict[str, Any] = {"linewidth": 2.5, "color": "black"} if name == "miou/source_val" else {}
        _plot(axes[2], points, name, "mIoU", label=name.removeprefix("miou/"), marker="o", markersize=3, **style)
    axes[2].legend(fontsize=7, ncols=2)
    _save(figure, path)


def save_iou_heatmap(per_class: dict[str, list[float | None]], names: Sequence[str], path: Path) -> None:
    """IoU (in percent) of every class (columns) on every dataset (rows); an empty cell is an absent class."""
    values = np.array([[np.nan if v is None else 100 * v for v in row] for row in per_class.values()], float)
    figure, axis = _subplots(1, 1, (0.55 * len(names) + 2.2, 0.42 * len(per_class) + 1.7))
    picture = axis.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(len(per_class)), list(per_class), fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > 60 else "white"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_title("IoU by class, %", fontsize=10)
    figure.colorbar(picture, ax=axis, pad=0.01)
    _save(figure, path)


def _subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=size, layout="constrained")


def _plot(axis: Any, points: list[dict[str, float]], key: str, title: str, log: bool = False, **style: Any) -> None:
    known = [(point["step"], point[key]) for point in points if key in point]
    if known:
        axis.plot(*zip(*known, strict=True), **style)
    if log and known and min(value for _, value in known) > 0:
        axis.set_yscale("log")
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("step", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _title(text: str, width: int) -> np.ndarray:
    canvas = Image.new("RGB", (width, TITLE_HEIGHT), "white")
    ImageDraw.Draw(canvas).text((width / 2, TITLE_HEIGHT / 2), text, "black", _font(14), anchor="mm")
    return np.asarray(canvas)


def _labelled(cell: np.ndarray, text: str) -> np.ndarray:
    canvas = Image.fromarray(cell)
    draw, font = ImageDraw.Draw(canvas), _font(13)
    left, top, right, bottom = draw.textbbox((6, 5), text, font)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill="black")
    draw.text((6, 5), text, "white", font)
    return np.asarray(canvas)


def _fitted(view: np.ndarray, width: int, *, nearest: bool) -> np.ndarray:
    height = round(view.shape[0] * width / view.shape[1])
    return cv2.resize(view, (width, height), interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_AREA)


def _line(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Cells side by side with white gaps between and below."""
    gap = np.full((cells[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=1)
    return np.concatenate([row, np.full((GAP, row.shape[1], 3), 255, np.uint8)])


def _legend(colours: ClassColours, width: int) -> np.ndarray:
    """Colour patches with class names, ten to a row."""
    canvas = Image.new("RGB", (width, _legend_height(len(colours.names))), "white")
    draw, font = ImageDraw.Draw(canvas), _font(12)
    step = width / LEGEND_COLUMNS
    for index, (name, colour) in enumerate(zip(colours.names, colours.colours, strict=True)):
        x, y = (index % LEGEND_COLUMNS) * step + 6, index // LEGEND_COLUMNS * 24 + 5
        draw.rectangle((x, y, x + 18, y + 15), fill=tuple(colour))
        draw.text((x + 24, y + 8), name, "black", font, anchor="lm")
    return np.asarray(canvas)


def _legend_height(num_classes: int) -> int:
    return -(-num_classes // LEGEND_COLUMNS) * 24 + 6
