"""The pictures of features: principal components as colours over the image, and how far features moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from recyclelora.drawing import style
from recyclelora.drawing.heatmap import cells, heatmap
from recyclelora.reports.analysis.features import LevelView
from recyclelora.reports.analysis.tables import Row, distinct, mean, select

OPACITY = 0.75
"""Of the colours over the image's grey."""

EXPLANATION = (
    "Colours: the first three principal components of the patch features\n"
    "as red, green and blue. Pretrained and adapted features share one\n"
    "set of components, so equal colours are equal features; the change\n"
    "(adapted − pretrained) has its own. Percentages: share of variance\n"
    "of the three components. Right: length of the change of each patch\n"
    "relative to its pretrained feature."
)


def feature_picture(image: np.ndarray, views: Sequence[LevelView], path: Path, name: str, label: str) -> None:
    """Rows: the image, then the backbone's levels; columns: pretrained, adapted, change, relative change."""
    height, width = image.shape[:2]
    cell = 3.3
    figure, axes = style.grid(
        len(views) + 1, 4, f"Features of {name}", label, panel=(cell, cell * height / width + 0.25)
    )
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(image)
    style.heading(axes[0, 0], "image")
    axes[0, 1].text(0.0, 0.95, EXPLANATION, fontsize=9.5, va="top", linespacing=1.35, in_layout=False)
    for row, view in zip(axes[1:], views, strict=True):
        _level(figure, row, image, view)
    style.save(figure, path)


def _level(figure: Any, row: Any, image: np.ndarray, view: LevelView) -> None:
    both = np.concatenate([view.pretrained, view.adapted])
    joint, change = 100 * view.joint_share.sum(), 100 * view.change_share.sum()
    row[0].imshow(_over(image, _colours(view.pretrained, both)))
    style.heading(row[0], f"block {view.block}: pretrained ({joint:.0f} %)")
    row[1].imshow(_over(image, _colours(view.adapted, both)))
    style.heading(row[1], "adapted")
    row[2].imshow(_over(image, _colours(view.change, view.change)))
    style.heading(row[2], f"change ({change:.0f} %)")
    height, width = image.shape[:2]
    size = 100 * view.relative_change
    edges = (0, width, height, 0)
    picture = row[3].imshow(size, extent=edges, cmap="magma", vmin=0, interpolation="nearest")
    style.heading(row[3], f"relative change, mean {size.mean():.1f} %")
    style.colour_bar(figure, picture, row[3], shrink=0.85, format="%.3g %%")


def _colours(projections: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Projections (h, w, 3) as RGB in 0..1; the range of each component is that of ``reference``, outliers cut."""
    low, high = np.percentile(reference.reshape(-1, projections.shape[-1]), (2, 98), axis=0)
    scaled: np.ndarray = np.clip((projections - low) / np.maximum(high - low, 1e-12), 0, 1)
    return scaled


def _over(image: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colours of the patches, enlarged, over the image's grey; floats (H, W, 3) in 0..1."""
    height, width = image.shape[:2]
    large = cv2.resize(colours.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] / 255.0
    mixed: np.ndarray = np.clip(OPACITY * large + (1 - OPACITY) * grey, 0, 1)
    return mixed


def feature_change(rows: Sequence[Row], path: Path, label: str) -> None:
    """Mean relative change of the features, every image by every level, as a table of colours and numbers."""
    moved = select(rows, quantity="relative_change")
    images, blocks = distinct(moved, "branch"), distinct(moved, "block")
    values = np.array([[100 * mean(r.value for r in select(moved, branch=i, block=b)) for b in blocks] for i in images])
    panel = (6.0, 0.42 * len(images) + 1.2)
    figure, axes = style.grid(1, 1, "Relative change of the features", label, panel)
    axis = axes[0, 0]
    picture = heatmap(axis, values, images, [f"block {block}" for block in blocks], cmap="magma", vmin=0)
    cells(picture, "{:.1f}", fontsize=9)
    style.colour_bar(figure, picture, axis, "$\\|\\Delta f\\| / \\|f\\|$, mean over patches (%)")
    style.save(figure, path)


def captions(images: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Image name -> a file name for its picture."""
    return {name: f"features_{''.join(c if c.isalnum() or c in '-_' else '_' for c in name)}.png" for name in images}
