"""Walls, fences and hedges along the `streets`, as textured panels."""

import numpy as np
from numpy.typing import NDArray

from recyclelora.data.streets.brush import paint_face
from recyclelora.data.streets.plan import Span, Street
from recyclelora.data.streets.plants import PLANT
from recyclelora.data.streets.textures import Bytes, Floats, cutout, fractal, to_bytes

WALL, FENCE = 3, 4


def panel(street: Street, kind: str, x: float, span: Span, high: float) -> None:
    """A wall, fence or hedge along the street."""
    label = {"wall": WALL, "fence": FENCE, "hedge": PLANT}[kind]
    picture = panel_picture(street, kind, span[1] - span[0], high)
    size = (span[1] - span[0], high)

    def paint() -> None:
        if kind != "fence":
            _panel_top(street, x, span, high, kind, label)
        street.canvas.textured((x, 0, span[0]), (0, 0, 1), (0, 1, 0), size, picture, label, (-np.sign(x), 0.0, 0.0))

    street.add(span[1] + 0.005 * abs(x), paint)
    street.cast_box(x, sum(span) / 2, 0.3, span[1] - span[0], high)


def _panel_top(street: Street, x: float, span: Span, high: float, kind: str, label: int) -> None:
    deep = np.sign(x) * (0.9 if kind == "hedge" else 0.25)
    near, far = span
    colour = (86, 110, 56) if kind == "hedge" else (150, 146, 138)
    top = np.array([[x, high, near], [x, high, far], [x + deep, high, far], [x + deep, high, near]])
    paint_face(street.canvas, top, [], np.array((0, 1.0, 0)), colour, label)
    if near > 1:
        end = np.array([[x, 0, near], [x + deep, 0, near], [x + deep, high, near], [x, high, near]])
        paint_face(street.canvas, end, [], np.array((0, 0, -1.0)), np.array(colour) * 0.9, label)


def panel_picture(street: Street, kind: str, wide: float, high: float) -> Bytes:
    """RGB-glow picture of a `wall`, `fence` or `hedge`, so many metres wide and high."""
    rng, ppm = street.rng, 22
    shape = (max(4, round(high * ppm)), max(4, round(wide * ppm)))
    grain = cutout(fractal("leaf", 512, 7, 0.8) if kind == "hedge" else fractal("plaster", 512, 6, 0.62), rng, *shape)
    gain = grain.astype(np.float32) / 128
    x, y = np.arange(shape[1])[None], np.arange(shape[0])[:, None]
    if kind == "hedge":
        colour, gain = street.pick(street.look.city.leaves), gain**1.5 * (1.15 - 0.5 * y / shape[0])
        gain = gain + street.look.snow * 1.6 * (y < 0.25 * shape[0])
    elif kind == "wall":
        colour, gain = _wall_style(street, gain, x, y)
    else:
        colour, gain = _fence_style(street, gain, x, y)
    return to_bytes(np.dstack([*(gain * c for c in colour), 0 * gain]))


def _wall_style(street: Street, gain: Floats, x: NDArray[np.intp], y: NDArray[np.intp]) -> tuple[Floats, Floats]:
    style = street.rng.integers(3)
    gain = 0.6 + 0.4 * gain
    if style == 0:
        joint = ((x + 4 * ((y // 5) % 2)) % 9 < 1) | (y % 5 < 1)
        return street.pick(((158, 92, 72), (170, 128, 98))), gain * np.where(joint, 0.72, 1.05)
    if style == 1:
        return street.pick(((164, 160, 152), (140, 140, 138))), gain * np.where(x % 66 < 2, 0.55, 1.0) * np.where(
            y < 3, 1.2, 1.0
        )
    joint = ((x + 7 * ((y // 9) % 2)) % 16 < 1) | (y % 9 < 1)
    return street.pick(((150, 140, 122), (128, 124, 118))), gain * np.where(joint, 0.6, 1.0)


def _fence_style(street: Street, gain: Floats, x: NDArray[np.intp], y: NDArray[np.intp]) -> tuple[Floats, Floats]:
    style, high = street.rng.integers(3), y.shape[0]
    gain = 0.75 + 0.25 * gain
    rail = (abs(y - 0.12 * high) < 1.2) | (abs(y - 0.85 * high) < 1.2)
    if style == 0:
        return street.pick(((150, 116, 82), (214, 208, 198), (112, 86, 64))), gain * np.where(x % 4 == 0, 0.45, 1.0)
    bars = (x % 4 < 2) if style == 1 else ((x + y) % 5 < 1) | ((x - y) % 5 < 1)
    post = x % 44 < 3
    return street.pick(((60, 64, 62), (150, 154, 156), (64, 92, 74))), np.where(bars | rail | post, 1.15, 0.5) * gain
