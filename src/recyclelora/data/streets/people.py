"""People and two-wheelers of the `streets` scenes, each painted at one depth."""

import math

import cv2
import numpy as np

from recyclelora.data.streets.brush import Brush, pick
from recyclelora.data.streets.canvas import Canvas
from recyclelora.data.streets.textures import Floats

PERSON, RIDER, MOTORCYCLE, BICYCLE = 11, 12, 17, 18
SKIN = ((236, 196, 168), (214, 168, 134), (168, 120, 88), (112, 76, 54), (80, 54, 40))
HAIR = ((30, 24, 20), (62, 42, 28), (120, 84, 48), (176, 140, 92), (130, 130, 130))
CLOTHES = (
    (32, 34, 40),
    (52, 58, 82),
    (90, 92, 98),
    (150, 38, 40),
    (44, 82, 132),
    (196, 190, 176),
    (58, 84, 58),
    (206, 156, 60),
    (128, 84, 60),
    (220, 222, 224),
    (98, 54, 96),
    (30, 120, 126),
    (216, 108, 128),
)


def person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A standing or walking adult or child in random clothes."""
    brush = Brush.at(canvas, x, z)
    tall = rng.uniform(1.55, 1.9) if rng.random() < 0.88 else rng.uniform(1.0, 1.4)
    body = Brush(canvas, brush.foot, brush.scale * tall / 1.75, brush.depth)
    surface = body.surface(PERSON)
    skin, top, legs = pick(rng, SKIN), pick(rng, CLOTHES), pick(rng, CLOTHES) * 0.75
    stride, swing, broad = rng.uniform(0, 0.34), rng.uniform(-1, 1), rng.uniform(0.85, 1.2)
    side = rng.choice((-1, 1))
    _legs(body, surface, rng, stride * side, legs, skin)
    _arm(body, surface, -side, stride * swing, broad, top * 0.85, skin)
    _torso(body, surface, rng, broad, top)
    _arm(body, surface, side, -stride * swing, broad, top, skin)
    _head(body, surface, rng, skin, 1.62, 0.03 * side)
    if rng.random() < 0.3:
        bag = pick(rng, CLOTHES)
        body.shape(
            surface, [(0.2 * side, 0.62), (0.46 * side, 0.6), (0.44 * side, 0.92), (0.22 * side, 0.94)], body.lit(bag)
        )


def _legs(body: Brush, surface: int, rng: np.random.Generator, stride: float, cloth: Floats, skin: Floats) -> None:
    bare = rng.random() < 0.2
    for sign, tone in ((-1, 0.8), (1, 1.0)):
        hip, knee = (0.08 * sign, 0.9), (0.09 * sign + sign * stride * 0.55, 0.49)
        ankle = (0.1 * sign + sign * stride, 0.07 + (0.06 if stride * sign < 0 else 0))
        body.bar(surface, knee, ankle, 0.12, skin if bare else cloth * tone)
        body.bar(surface, hip, knee, 0.165, cloth * tone)
        body.bar(surface, ankle, (ankle[0] + 0.1 * (1 if stride >= 0 else -1), 0.04), 0.09, (36, 32, 30))
    if rng.random() < 0.2:
        body.shape(surface, [(-0.18, 0.95), (0.18, 0.95), (0.27, 0.5), (-0.27, 0.5)], body.lit(cloth * 1.2))


def _torso(body: Brush, surface: int, rng: np.random.Generator, broad: float, cloth: Floats) -> None:
    hem = 0.86 if rng.random() < 0.7 else 0.62
    s = 0.205 * broad
    outline = [
        (-s * 0.85, hem),
        (s * 0.85, hem),
        (s * 0.8, 1.1),
        (s, 1.38),
        (s * 0.55, 1.47),
        (-s * 0.55, 1.47),
        (-s, 1.38),
        (-s * 0.8, 1.1),
    ]
    body.shape(surface, outline, body.lit(cloth, -0.6))
    body.shape(surface, [(x * 0.8 + 0.035, y) for x, y in outline], body.lit(cloth))
    body.shape(surface, [(x * 0.36 + 0.09, y * 0.99) for x, y in outline], body.lit(cloth, 0.6))
    if rng.random() < 0.35:
        body.shape(surface, [(-0.05, 1.47), (0.05, 1.47), (0.03, hem), (-0.03, hem)], body.lit(pick(rng, CLOTHES)))


def _arm(body: Brush, surface: int, side: float, swing: float, broad: float, cloth: Floats, skin: Floats) -> None:
    elbow = (side * 0.25 * broad + swing * 0.4, 1.12)
    hand = (side * 0.24 * broad + swing * 0.9, 0.84 + abs(swing) * 0.2)
    body.bar(surface, elbow, hand, 0.085, cloth)
    body.bar(surface, (side * 0.2 * broad, 1.38), elbow, 0.11, cloth)
    body.disc(surface, *hand, 0.05, body.lit(skin))


def _head(body: Brush, surface: int, rng: np.random.Generator, skin: Floats, y: float, lean: float) -> None:
    hair = pick(rng, HAIR)
    body.bar(surface, (0, y - 0.2), (lean, y - 0.1), 0.11, skin * 0.85)
    body.disc(surface, lean, y + 0.01, 0.125, body.lit(hair, -0.3), 0.86)
    if rng.random() < 0.6:
        body.disc(surface, lean + 0.01, y - 0.03, 0.095, body.lit(skin), 0.85)
    if rng.random() < 0.3:
        body.bar(surface, (lean - 0.06, y - 0.02), (lean - 0.06, y - 0.2), 0.1, hair)


def bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, turn: float, ridden: bool) -> None:
    """A bicycle seen `turn` (0 end on .. 1 side on), with its rider when `ridden`."""
    brush = Brush.at(canvas, x, z)
    surface, frame = brush.surface(BICYCLE), pick(rng, CLOTHES)
    reach = 0.52 * turn
    for wheel in (-reach, reach):
        _spoked(brush, surface, wheel, 0.34, max(turn, 0.14))
    saddle, bar = (-0.16 * turn, 0.92), (0.36 * turn, 1.02)
    crank = (-0.02 * turn, 0.32)
    for a, b in (
        (crank, saddle),
        (saddle, (-reach, 0.34)),
        (crank, (0.32 * turn, 0.82)),
        ((-0.1 * turn, 0.78), (0.32 * turn, 0.82)),
        ((0.32 * turn, 0.84), (reach, 0.34)),
        (bar, (0.32 * turn, 0.8)),
    ):
        brush.bar(surface, a, b, 0.055, frame)
    brush.bar(surface, (bar[0] - 0.24 * (1.1 - turn), 1.04), (bar[0] + 0.24 * (1.1 - turn), 1.04), 0.05, (40, 40, 42))
    brush.bar(surface, (saddle[0] - 0.1, 0.95), (saddle[0] + 0.09, 0.95), 0.07, (30, 28, 28))
    if ridden:
        _rider(brush, rng, (saddle[0], 0.98), (bar[0], 1.06), crank, turn, helmet=rng.random() < 0.5)


def _spoked(brush: Brush, surface: int, x: float, radius: float, squash: float) -> None:
    middle = brush.px(x, radius)
    axes = (max(1, round(radius * squash * brush.scale)), max(1, round(radius * brush.scale)))
    thick = max(1, round(0.06 * brush.scale))
    for buffer, paint in ((brush.canvas.colour, (26, 26, 28, 0)), (brush.canvas.surfaces, surface)):
        cv2.ellipse(buffer, (round(float(middle[0])), round(float(middle[1]))), axes, 0, 0, 360, paint, thick)
    for angle in np.arange(6) * (math.pi / 6):
        d = np.array([math.cos(angle) * squash, math.sin(angle)]) * radius * brush.scale
        brush.canvas.stroke(middle - d, middle + d, 1, surface, (120, 122, 124))


def motorcycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, turn: float, ridden: bool) -> None:
    """A motorcycle or scooter seen `turn` (0 end on .. 1 side on), with its rider when `ridden`."""
    brush = Brush.at(canvas, x, z)
    surface, paint = brush.surface(MOTORCYCLE), pick(rng, CLOTHES)
    reach, squash = 0.68 * turn, max(turn, 0.28)
    for wheel in (-reach, reach):
        for part, tone in ((1.0, 24), (0.6, 96), (0.3, 40)):
            brush.disc(surface, wheel, 0.32, 0.32 * part, (tone, tone, tone + 2), squash)
    wide = 0.2 + 0.55 * turn
    brush.shape(
        surface,
        [(-wide * 0.6, 0.3), (wide * 0.6, 0.3), (wide * 0.5, 0.62), (-wide * 0.6, 0.62)],
        brush.lit((58, 60, 64)),
    )
    brush.shape(
        surface,
        [(-wide, 0.6), (wide * 0.5, 0.58), (wide * 0.85, 0.86), (wide * 0.3, 0.95), (-wide * 0.9, 0.82)],
        brush.lit(paint),
    )
    brush.shape(
        surface, [(-wide * 0.9, 0.78), (wide * 0.1, 0.78), (0, 0.88), (-wide * 0.95, 0.9)], brush.lit((28, 28, 30))
    )
    bar = (0.42 * turn, 1.05)
    brush.bar(surface, (reach, 0.34), bar, 0.07, (90, 92, 96))
    brush.bar(surface, (bar[0] - 0.33 * (1.1 - turn), 1.06), (bar[0] + 0.33 * (1.1 - turn), 1.06), 0.06, (30, 30, 32))
    brush.disc(surface, bar[0] * 1.15, 0.9, 0.1, (226, 60, 50, 60) if turn < 0.5 else (236, 236, 220, 40))
    if ridden:
        _rider(brush, rng, (-0.16 * turn, 0.92), (bar[0], 1.1), (0.08 * turn, 0.38), turn, helmet=True)


def _rider(
    brush: Brush,
    rng: np.random.Generator,
    seat: tuple[float, float],
    bar: tuple[float, float],
    pedal: tuple[float, float],
    turn: float,
    helmet: bool,
) -> None:
    surface = brush.surface(RIDER)
    skin, top, legs = pick(rng, SKIN), pick(rng, CLOTHES), pick(rng, CLOTHES) * 0.7
    neck = (seat[0] + 0.22 * turn, seat[1] + 0.56)
    spread = 0.16 * (1 - turn)
    for sign, lift in ((-1, 0.16), (1, 0.0)):
        foot = (pedal[0] + 0.12 * turn * sign + spread * sign, pedal[1] - 0.08 + lift)
        knee = (seat[0] + 0.36 * turn + spread * 1.4 * sign, (seat[1] + foot[1]) / 2 + 0.12)
        brush.bar(surface, (seat[0] + spread * 0.6 * sign, seat[1] + 0.03), knee, 0.17, legs)
        brush.bar(surface, knee, foot, 0.12, legs)
        brush.bar(surface, foot, (foot[0] + 0.12 * turn, foot[1] - 0.02), 0.09, (34, 32, 32))
    brush.bar(surface, (seat[0], seat[1] + 0.1), neck, 0.34 if turn < 0.5 else 0.27, top)
    for sign in (-1, 1):
        shoulder = (neck[0] + 0.17 * (1 - turn) * sign, neck[1] - 0.05)
        brush.bar(surface, shoulder, (bar[0] + 0.24 * (1 - turn) * sign, bar[1]), 0.1, top * 0.88)
    head = (neck[0] + 0.05 * turn, neck[1] + 0.23)
    brush.bar(surface, neck, head, 0.1, skin)
    brush.disc(surface, *head, 0.115, brush.lit(skin), 0.9)
    cover = pick(rng, CLOTHES if helmet else HAIR)
    brush.disc(surface, head[0] - 0.02, head[1] + 0.045, 0.125, brush.lit(cover), 0.95)
