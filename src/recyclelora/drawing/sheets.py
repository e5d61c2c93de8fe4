"""Pictures made of images: predictions beside ground truth, training crops under their labels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def panel(rows: Sequence[Shown], colours: ClassColours, width: int = 420, title: str = "") -> np.ndarray:
    """Rows of image, ground truth, prediction and errors under their titles, with a legend: uint8 RGB."""
    lines = []
    for row in rows:
        truth = np.full_like(row.prediction, colours.ignore_index) if row.truth is None else row.truth
        error = error_map(row.image, truth, row.prediction, colours)
        views = [row.image, colours.paint(truth), colours.paint(row.prediction), error]
        cells = [_fitted(view, width, nearest=0 < index < 3) for index, view in enumerate(views)]
        cells[0] = _labelled(cells[0], row.title)
        if row.truth is None:
            cells[1] = _labelled(cells[1], "no labels")
            overlay = _fitted(colours.overlay(row.image, row.prediction), width, nearest=False)
            cells[3] = _labelled(overlay, "overlay")
        else:
            cells[3] = _labelled(cells[3], f"{wrong_share(truth, row.prediction, colours.ignore_index):.0%} wrong")
        lines.append(cells)
    return _sheet(HEADS, lines, colours, title)


def comparison(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray, Sequence[tuple[str, np.ndarray]]]],
    methods: Sequence[str],
    colours: ClassColours,
    width: int = 420,
    title: str = "",
) -> np.ndarray:
    """What several methods say of the same images, under their names, with a legend: uint8 RGB.

    Args:
        rows: title, image (H, W, 3), true ids (H, W), and for each method a remark and the ids (H, W) it predicts
        methods: their names, in the order of the predictions
        colours: names and colours of the classes
        width: of one view, in pixels
        title: line above everything
    """
    lines = []
    for name, image, truth, predictions in rows:
        unlabelled = truth == colours.ignore_index
        said = [(remark, np.where(unlabelled, colours.ignore_index, ids)) for remark, ids in predictions]
        painted = [_fitted(colours.paint(ids), width, nearest=True) for ids in (truth, *(ids for _, ids in said))]
        labelled = [_labelled(cell, remark) for cell, (remark, _) in zip(painted[1:], said, strict=True)]
        lines.append([_labelled(_fitted(image, width, nearest=False), name), painted[0], *labelled])
    return _sheet((*HEADS[:2], *methods), lines, colours, title)


def _sheet(
    heads: Sequence[str], cells: Sequence[Sequence[np.ndarray]], colours: ClassColours, title: str
) -> np.ndarray:
    """Rows of equally wide cells under their heads, a title above and the legend below."""
    lines = [_line([_title(head, cells[0][0].shape[1]) for head in heads]), *map(_line, cells)]
    full = lines[0].shape[1]
    return np.concatenate([*([_title(title, full)] if title else []), *lines, legend(colours, full)])


def panel_columns(picture: np.ndarray, num_classes: int) -> dict[str, np.ndarray]:
    """The four columns of a titled `panel` without titles and legend, by their heads."""
    width = (picture.shape[1] - (len(HEADS) - 1) * GAP) // len(HEADS)
    rows = picture[2 * TITLE_HEIGHT + GAP : picture.shape[0] - _legend_height(num_classes) - GAP]
    return {head: rows[:, index * (width + GAP) :][:, :width] for index, head in enumerate(HEADS)}


def crop_sheet(
    crops: Sequence[tuple[np.ndarray, np.ndarray]], colours: ClassColours, columns: int, title: str, width: int = 260
) -> np.ndarray:
    """Training crops, each beside itself under its label's colours, ``columns`` pairs a row: uint8 RGB.

    Args:
        crops: images (H, W, 3) and train ids (H, W), all of one size
        colours: names and colours of the classes
        columns: pairs in a row
        title: line above them
        width: of one view, in pixels
    """
    pairs = []
    for image, ids in crops:
        over = np.where((ids == colours.ignore_index)[..., None], image // 3, colours.overlay(image, ids))
        pairs.append(np.concatenate([_fitted(view, width, nearest=False) for view in (image, over)], axis=1))
    while len(pairs) % columns:
        pairs.append(np.full_like(pairs[0], 255))
    lines = [_line(pairs[start : start + columns]) for start in range(0, len(pairs), columns)]
    full = lines[0].shape[1]
    return np.concatenate([_title(title, full), *lines, legend(colours, full)])


ERROR_COLOURS = ((214, 39, 40), (0, 229, 238), (255, 215, 0), (255, 105, 180), (0, 200, 83))
"""Red, cyan, gold, pink, green."""
FAR = 100.0
"""Between two colours that nobody takes for the same, as distance in RGB."""


def error_colour(colours: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """The first colour for errors that is far from every class's, or the one that is farthest."""
    known = np.asarray(colours, float).reshape(-1, 3)
    apart = [float(np.linalg.norm(known - c, axis=1).min(initial=FAR)) for c in ERROR_COLOURS]
    return ERROR_COLOURS[next((i for i, d in enumerate(apart) if d >= FAR), int(np.argmax(apart)))]


def error_map(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, colours: ClassColours) -> np.ndarray:
    """The image in pale grey, wrong pixels in a colour that no class has, unlabelled ones dark."""
    ignore_index = colours.ignore_index
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    view = np.repeat((160 + grey[..., None] // 3).astype(np.uint8), 3, axis=-1)
    view[(truth != prediction) & (truth != ignore_index)] = error_colour(colours.colours)
    view[truth == ignore_index] = 60
    return view


def wrong_share(truth: np.ndarray, prediction: np.ndarray, ignore_index: int) -> float:
    """Share of the labelled pixels that are predicted wrong; 0 where nothing is labelled."""
    labelled = truth != ignore_index
    total = int(np.count_nonzero(labelled))
    return int(np.count_nonzero(labelled & (truth != prediction))) / max(total, 1)


def png(picture: np.ndarray) -> bytes:
    """Uint8 RGB (H, W, 3) as a PNG file, small rather than smallest."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=4)
    return buffer.getvalue()


def data_uri(picture: np.ndarray, width: int, form: str = "jpeg", quality: int = 85) -> str:
    """Uint8 RGB (H, W, 3), no wider than ``width`` pixels, as the address of an image that needs no file."""
    small = picture if picture.shape[1] <= width else _fitted(picture, width, nearest=False)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format=form, quality=quality)
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write uint8 RGB (H, W, 3) or grey (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, optimize=False)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

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
    height = max(1, round(view.shape[0] * width / view.shape[1]))
    return cv2.resize(view, (width, height), interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_AREA)


def _line(cells: Sequence[np.ndarray]) -> np.ndarray:
    """Cells side by side with white gaps between and below."""
    gap = np.full((cells[0].shape[0], GAP, 3), 255, np.uint8)
    row = np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=1)
    return np.concatenate([row, np.full((GAP, row.shape[1], 3), 255, np.uint8)])


def legend(colours: ClassColours, width: int) -> np.ndarray:
    """Colour patches with class names, ten to a row, and the black of what has no label."""
    entries: list[tuple[str, Sequence[int]]] = [
        *zip(colours.names, colours.colours, strict=True),
        ("not labelled", (0, 0, 0)),
    ]
    canvas = Image.new("RGB", (width, _legend_height(len(colours.names))), "white")
    draw, font = ImageDraw.Draw(canvas), _font(12)
    step = width / LEGEND_COLUMNS
    for index, (name, colour) in enumerate(entries):
        x, y = (index % LEGEND_COLUMNS) * step + 6, index // LEGEND_COLUMNS * 24 + 5
        draw.rectangle((x, y, x + 18, y + 15), fill=tuple(colour))
        draw.text((x + 24, y + 8), name, "black", font, anchor="lm")
    return np.asarray(canvas)


def _legend_height(num_classes: int) -> int:
    """In pixels, with the entry for what is not labelled."""
    return -(-(num_classes + 1) // LEGEND_COLUMNS) * 24 + 6
