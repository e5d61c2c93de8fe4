"""Street furniture of the `streets` scenes, painted at one depth each."""

import math

import numpy as np

from recyclelora.data.streets.brush import Brush, pick
from recyclelora.data.streets.canvas import IGNORE, Canvas

POLE, LIGHT, SIGN = 5, 6, 7


def lamp_post(canvas: Canvas, rng: np.random.Generator, x: float, z: float, lit: bool, wooden: bool) -> None:
    """A street lamp with an arm over the road, or a wooden utility pole with its cross bars."""
    brush = Brush.at(canvas, x, z)
    surface = brush.surface(POLE)
    high = rng.uniform(6.5, 8.5)
    reach = -math.copysign(rng.uniform(0.9, 1.8), x)
    if wooden:
        brush.bar(surface, (0, 0), (0, high), 0.26, (108, 84, 62))
        for y in (high - 0.4, high - 1.2):
            brush.bar(surface, (-0.9, y), (0.9, y), 0.14, (96, 76, 58))
        return
    tone = rng.uniform(70, 140)
    brush.bar(surface, (0, 0), (0, 1.0), 0.24, (tone, tone, tone))
    brush.bar(surface, (0, 0.8), (0, high), 0.15, (tone, tone + 2, tone + 3))
    brush.bar(surface, (0, high), (reach, high + 0.25), 0.1, (tone, tone, tone))
    glow = (255, 226, 170, 255) if lit else (206, 208, 206, 0)
    brush.shape(
        surface,
        [
            (reach * 0.75, high + 0.34),
            (reach * 1.35, high + 0.36),
            (reach * 1.35, high + 0.18),
            (reach * 0.75, high + 0.12),
        ],
        glow,
    )


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float, overhead: bool) -> None:
    """A traffic light on its pole, or hung over the road from an arm."""
    brush = Brush.at(canvas, x, z)
    pole = brush.surface(POLE)
    tone = (84, 86, 88)
    brush.bar(pole, (0, 0), (0, 5.6 if overhead else 3.2), 0.14, tone)
    heads = [(0.0, 2.3)]
    if overhead:
        reach = -math.copysign(rng.uniform(2.5, 3.6), x)
        brush.bar(pole, (0, 5.5), (reach, 5.6), 0.12, tone)
        heads += [(reach, 4.7)]
    state, face_on = int(rng.integers(3)), rng.random() < 0.85
    for hx, hy in heads:
        _light_head(brush, brush.surface(LIGHT), hx, hy, state if face_on else -1)


def _light_head(brush: Brush, surface: int, x: float, y: float, state: int) -> None:
    brush.shape(
        surface,
        [(x - 0.24, y - 0.06), (x + 0.24, y - 0.06), (x + 0.24, y + 1.06), (x - 0.24, y + 1.06)],
        brush.lit((30, 34, 32)),
    )
    brush.shape(
        surface, [(x + 0.18, y), (x + 0.24, y), (x + 0.24, y + 1.0), (x + 0.18, y + 1.0)], brush.lit((70, 74, 72))
    )
    if state < 0:
        return
    for i, bright in enumerate(((40, 235, 130, 255), (255, 190, 40, 255), (255, 48, 40, 255))):
        dim = tuple(c * 0.22 + 8 for c in bright[:3])
        brush.disc(surface, x, y + 0.18 + 0.32 * i, 0.13, bright if i == state else dim)


def _ngon(n: int, turn: float = 0.0) -> list[tuple[float, float]]:
    return [(math.cos(turn + i * math.tau / n), math.sin(turn + i * math.tau / n)) for i in range(n)]


# Outline, rim colour, face colour, symbol colour.
SIGNS = (
    (_ngon(16), (196, 24, 30), (240, 240, 240), (20, 20, 22)),
    (_ngon(3, math.pi / 2), (200, 26, 30), (242, 242, 238), (24, 24, 26)),
    (_ngon(16), (236, 236, 238), (22, 74, 164), (244, 244, 246)),
    (_ngon(8, math.pi / 8), (240, 240, 240), (190, 22, 28), (244, 244, 244)),
    (_ngon(4), (244, 244, 240), (240, 192, 30), (240, 192, 30)),
    ([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], (238, 240, 244), (28, 86, 172), (244, 244, 246)),
    (_ngon(3, -math.pi / 2), (204, 26, 32), (244, 244, 240), (244, 244, 240)),
    (_ngon(4), (28, 28, 26), (244, 190, 20), (28, 28, 26)),
    ([(-0.7, -0.9), (0.7, -0.9), (0.7, 0.9), (-0.7, 0.9)], (30, 30, 32), (242, 242, 242), (26, 26, 28)),
)


def traffic_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float, kinds: tuple[int, ...]) -> None:
    """One or two road signs on a grey pole; `kinds` index SIGNS."""
    brush = Brush.at(canvas, x, z)
    high, size = rng.uniform(2.2, 2.9), rng.uniform(0.34, 0.46)
    brush.bar(brush.surface(POLE), (0, 0), (0, high + 0.3), 0.085, (134, 138, 140))
    away = rng.random() < 0.12
    for y in (high, high - 2.1 * size)[: 1 + int(rng.random() < 0.35)]:
        outline, rim, face, mark = SIGNS[kinds[rng.integers(len(kinds))]]
        surface = brush.surface(SIGN)
        brush.shape(
            surface, [(a * size, y + b * size) for a, b in outline], brush.lit((128, 130, 132) if away else rim)
        )
        if not away:
            brush.shape(surface, [(a * size * 0.76, y + b * size * 0.76) for a, b in outline], brush.lit(face))
            lean = rng.uniform(-0.3, 0.3)
            brush.bar(surface, (-lean * size, y - 0.3 * size), (lean * size, y + 0.3 * size), size * 0.22, mark)


def gantry(canvas: Canvas, rng: np.random.Generator, left: float, right: float, z: float) -> None:
    """A frame over the road that carries large direction boards."""
    brush = Brush.at(canvas, 0.0, z)
    pole = brush.surface(POLE)
    for x in (left, right):
        brush.bar(pole, (x, 0), (x, 6.6), 0.3, (140, 142, 144))
    for y in (5.7, 6.5):
        brush.bar(pole, (left, y), (right, y), 0.16, (140, 142, 144))
    face = ((24, 82, 168), (20, 110, 70))[int(rng.random() < 0.5)]
    for start in np.arange(left + 1.2, right - 3.6, 4.4):
        board = brush.surface(SIGN)
        brush.shape(
            board, [(start, 5.0), (start + 3.4, 5.0), (start + 3.4, 7.1), (start, 7.1)], brush.lit((240, 240, 240))
        )
        brush.shape(
            board, [(start + 0.1, 5.1), (start + 3.3, 5.1), (start + 3.3, 7.0), (start + 0.1, 7.0)], brush.lit(face)
        )
        for y, wide in ((6.5, rng.uniform(1, 2.6)), (5.9, rng.uniform(1, 2.6)), (5.4, 0.6)):
            brush.bar(board, (start + 0.4, y), (start + 0.4 + wide, y), 0.18, (240, 240, 242))


def bin_box(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A dustbin or switch box: static clutter, which Cityscapes leaves unlabelled."""
    brush = Brush.at(canvas, x, z)
    surface, paint = brush.surface(IGNORE), pick(rng, ((60, 90, 60), (70, 72, 76), (150, 120, 40), (120, 122, 120)))
    wide, high = rng.uniform(0.25, 0.5), rng.uniform(0.9, 1.4)
    brush.shape(surface, [(-wide, 0), (wide, 0), (wide, high), (-wide, high)], brush.lit(paint))
    brush.shape(surface, [(-wide, 0), (-wide * 0.3, 0), (-wide * 0.3, high), (-wide, high)], brush.lit(paint, -0.8))
    brush.shape(
        surface,
        [(-wide * 1.1, high), (wide * 1.1, high), (wide, high + 0.1), (-wide, high + 0.1)],
        brush.lit(paint * 0.6),
    )


def bollard(canvas: Canvas, x: float, z: float) -> None:
    """A waist-high post at the kerb."""
    brush = Brush.at(canvas, x, z)
    surface = brush.surface(POLE)
    brush.bar(surface, (0, 0.05), (0, 0.95), 0.14, (74, 76, 80))
    brush.bar(surface, (0, 0.72), (0, 0.8), 0.14, (220, 220, 220))
