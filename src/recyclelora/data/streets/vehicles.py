"""Vehicles of the `streets` scenes: lofted bodies with windows, lamps, plates and wheels, shaded face by face."""

import math
from itertools import pairwise

import numpy as np

from recyclelora.data.streets.brush import paint_face
from recyclelora.data.streets.canvas import Canvas, Colour
from recyclelora.data.streets.solids import TYRE, Face, Patch, Pose, Solid, paint_solid

CAR, TRUCK, BUS, TRAIN = 13, 14, 15, 16
GLASS = (38, 46, 54)
RED_LAMP, WHITE_LAMP = (190, 22, 20), (238, 238, 225)


def _tail(face: Face, pose: Pose, low: float, high: float, wide: float = 0.17) -> None:
    lamp = (255, 40, 30, 170) if pose.lamps_on else (*RED_LAMP, 25)
    for s0, s1 in ((0.03, 0.03 + wide), (0.97 - wide, 0.97)):
        face.on((s0, low, s1, high), lamp)
        face.on((s0, low, s1, low + 0.2 * (high - low)), (215, 120, 50))


def _head(face: Face, pose: Pose, low: float, high: float, wide: float = 0.2) -> None:
    lamp = (255, 250, 225, 255) if pose.lamps_on else (*WHITE_LAMP, 10)
    for s0, s1 in ((0.04, 0.04 + wide), (0.96 - wide, 0.96)):
        face.on((s0 - 0.01, low - 0.05, s1 + 0.01, high + 0.05), (40, 42, 46))
        face.on((s0, low, s1, high), lamp)


def _shine(colour: Colour, gain: float) -> Colour:
    return tuple(min(255.0, c * gain + 12 * (gain > 1)) for c in colour)


def _glass(face: Face, patch: Patch, sky: float = 0.55) -> None:
    """A window with the sky mirrored in its upper part."""
    s0, t0, s1, t1 = patch
    face.on(patch, GLASS)
    face.on((s0, t0 + sky * (t1 - t0), s1, t1), (84, 98, 112))
    face.on((s0 + 0.62 * (s1 - s0), t0, s0 + 0.74 * (s1 - s0), t1), (66, 76, 86))


# Body and cabin outlines in fractions of half the length, metres of height, and fractions of half the width.
CABINS = {
    "saloon": ((-0.78, 0.92), (-0.5, 1.42), (0.1, 1.44), (0.45, 0.95)),
    "hatch": ((-0.97, 0.92), (-0.82, 1.46), (0.12, 1.5), (0.5, 0.95)),
    "estate": ((-0.98, 0.9), (-0.9, 1.46), (0.08, 1.5), (0.46, 0.93)),
    "suv": ((-0.97, 1.05), (-0.88, 1.72), (0.14, 1.74), (0.48, 1.08)),
    "van": ((-0.99, 1.05), (-0.97, 1.95), (0.45, 1.97), (0.82, 1.08)),
    "coupe": ((-0.85, 0.82), (-0.4, 1.24), (0.02, 1.26), (0.42, 0.86)),
}


def car(canvas: Canvas, rng: np.random.Generator, pose: Pose, colour: Colour, kind: str, yellow_plate: bool) -> None:
    """A passenger car of one of the CABINS."""
    cabin = CABINS[kind]
    half, wide, belt = rng.uniform(1.85, 2.35), rng.uniform(0.84, 0.94), cabin[0][1]
    _underside(canvas, pose, half, wide)
    nose = 0.9 if kind == "van" else rng.uniform(0.8, 0.9)
    body = Solid(
        [
            (-half, 0.25, wide * 0.94),
            (-half * 1.02, 0.58, wide),
            (-half * 0.97, belt, wide * 0.97),
            (half * 0.48, belt + 0.02, wide * 0.97),
            (half * nose, belt * 0.9, wide * 0.95),
            (half, belt * 0.68, wide * 0.93),
            (half * 0.99, 0.24, wide * 0.9),
        ],
        colour,
    )
    _dress_body(body, pose, half, belt, colour, yellow_plate)
    paint_solid(canvas, body, pose, CAR)
    top = [(half * z, y, wide * w) for (z, y), w in zip(cabin, (0.96, 0.76, 0.76, 0.95), strict=True)]
    shell = Solid(top, colour)
    _glass(shell.strips[0], (0.08, 0.12, 0.92, 0.88))
    _glass(shell.strips[2], (0.05, 0.08, 0.95, 0.92), sky=0.4)
    for side in shell.sides:
        seat = side_quad(side)
        _glass(seat, (0.1, 0.1, 0.5, 0.84))
        _glass(seat, (0.54, 0.1, 0.9, 0.84))
        side.shapes = seat.details()
    paint_solid(canvas, shell, pose, CAR)


def side_quad(face: Face) -> Face:
    """A four-cornered side seen as rear bottom, front bottom, front top, rear top."""
    a, b, c, d = face.corners
    return Face(np.array([a, d, c, b]), face.colour)


def _dress_body(body: Solid, pose: Pose, half: float, belt: float, colour: Colour, yellow_plate: bool) -> None:
    plate = (222, 190, 50) if yellow_plate else (226, 228, 230)
    bumper, boot = body.strips[0], body.strips[1]
    bumper.on((0.0, 0.0, 1.0, 0.5), (34, 34, 37))
    boot.on((0.0, 0.82, 1.0, 1.0), _shine(colour, 1.25))
    boot.on((0.36, 0.1, 0.64, 0.42), plate)
    _tail(boot, pose, 0.35, 0.85)
    grille = body.strips[5]
    grille.on((0.0, 0.0, 1.0, 0.3), (30, 30, 33))
    grille.on((0.27, 0.45, 0.73, 0.85), (22, 22, 25))
    grille.on((0.38, 0.2, 0.62, 0.42), plate)
    _head(grille, pose, 0.55, 0.92)
    body.side_detail(-half, 0.25, half, 0.36, (36, 36, 38))
    body.side_detail(-half * 0.9, belt - 0.14, half * 0.85, belt - 0.06, _shine(colour, 1.3))
    body.side_detail(-half * 0.97, 0.36, half * 0.95, belt * 0.62, _shine(colour, 0.84))
    for seam in (-0.12, 0.28):
        body.side_detail(half * seam, 0.4, half * seam + 0.03, belt, _shine(colour, 0.5))
    for z in (-0.62, 0.64):
        body.wheel(half * z, 0.33)


def _underside(canvas: Canvas, pose: Pose, half: float, wide: float, clear: float = 0.34, label: int = CAR) -> None:
    """Tyres and the dark gap under the body, seen from either end."""
    end = half * 0.86 if abs(math.remainder(pose.heading, 360)) > 90 else -half * 0.86
    spans = ((-wide, wide, 0.14), (-wide, 0.24 - wide, 0.0), (wide - 0.24, wide, 0.0))
    quads = [np.array([[x0, y, end], [x1, y, end], [x1, clear, end], [x0, clear, end]]) for x0, x1, y in spans]
    gap, *tyres = (pose.world(quad) for quad in quads)
    paint_face(canvas, gap, [(tyre, TYRE) for tyre in tyres], np.array([0, 0.2, -1.0]), (15, 15, 16), label)


def _block(z0: float, z1: float, y0: float, y1: float, wide: float, colour: Colour, bow: float = 0.04) -> Solid:
    """A box with slightly bowed ends."""
    return Solid(
        [
            (z0, y0, wide),
            (z0 - bow, (y0 + y1) / 2, wide),
            (z0, y1, wide * 0.97),
            (z1, y1, wide * 0.97),
            (z1 + bow, (y0 + y1) / 2, wide),
            (z1, y0, wide),
        ],
        colour,
    )


def truck(canvas: Canvas, rng: np.random.Generator, pose: Pose, colour: Colour) -> None:
    """A lorry: cab, chassis and a box or tarpaulin body with a stripe of lettering."""
    half, high = rng.uniform(3.2, 4.8), rng.uniform(2.9, 3.7)
    cargo_colour = colour if rng.random() < 0.5 else (214, 214, 208)
    _underside(canvas, pose, half, 1.15, 0.9, TRUCK)
    cab = _block(half - 1.75, half, 0.45, min(high - 0.2, 2.9), 1.15, colour, 0.1)
    front = cab.strips[4]
    front.on((0.0, 0.0, 1.0, 0.12), (30, 30, 32))
    _head(front, pose, 0.3, 0.5, 0.16)
    front.on((0.25, 0.3, 0.75, 0.75), (26, 26, 28))
    _glass(cab.strips[3], (0.05, 0.15, 0.95, 0.85))
    cab.side_detail(half - 1.1, 1.6, half - 0.2, 2.4, GLASS)
    cab.wheel(half - 0.8, 0.48)
    cargo = _block(-half, half - 1.95, 0.85, high, 1.2, cargo_colour, 0.0)
    _dress_cargo(cargo, rng, pose, half, high, cargo_colour)
    first, second = (cargo, cab) if math.cos(math.radians(pose.heading)) < 0 else (cab, cargo)
    paint_solid(canvas, first, pose, TRUCK)
    paint_solid(canvas, second, pose, TRUCK)


def _dress_cargo(cargo: Solid, rng: np.random.Generator, pose: Pose, half: float, high: float, paint: Colour) -> None:
    stripe = tuple(rng.integers(30, 220, 3))
    cargo.side_detail(-half + 0.6, 1.5, half - 2.6, 1.5 + rng.uniform(0.3, 0.9), stripe)
    for z in np.arange(-half + 0.5, half - 2.0, 0.75):
        cargo.side_detail(z, 0.9, z + 0.05, high - 0.05, _shine(paint, 0.82))
    for z in (-half + 0.9, -half + 1.9):
        cargo.wheel(z, 0.48)
    for strip in cargo.strips[:2]:
        strip.on((0.49, 0.0, 0.51, 1.0), (60, 60, 62))
        for s in (0.2, 0.8):
            strip.on((s, 0.0, s + 0.02, 1.0), _shine(paint, 0.7))
    cargo.strips[0].on((0.0, 0.0, 1.0, 0.1), (44, 40, 40))
    _tail(cargo.strips[0], pose, 0.0, 0.12, 0.12)
    cargo.strips[0].on((0.4, 0.02, 0.6, 0.13), (220, 220, 215))


def _pane_row(solid: Solid, z0: float, z1: float, y0: float, y1: float, pitch: float, gap: float = 0.12) -> None:
    """A row of windows on both sides, `pitch` metres from one to the next."""
    solid.side_detail(z0 - 0.1, y0 - 0.08, z1 + 0.1, y1 + 0.06, (30, 33, 37))
    for z in np.arange(z0, z1 - 0.4, pitch):
        solid.side_detail(z, y0, min(z + pitch - gap, z1), y1, (52, 62, 70))
        solid.side_detail(z, y0 + 0.55 * (y1 - y0), min(z + pitch - gap, z1), y1, (92, 106, 118))


def bus(canvas: Canvas, rng: np.random.Generator, pose: Pose, colour: Colour) -> None:
    """A city bus with rows of windows, doors, a destination board and a dark skirt."""
    half, high, wide = rng.uniform(5.0, 6.2), rng.uniform(2.9, 3.2), 1.25
    _underside(canvas, pose, half, wide, 0.4, BUS)
    body = _block(-half, half, 0.32, high, wide, colour, 0.08)
    _pane_row(body, -half + 0.5, half - 0.5, 1.35, 2.45, 1.4)
    body.side_detail(-half, 0.32, half, 0.6, _shine(colour, 0.55))
    body.side_detail(-half, 2.55, half, 2.72, _shine(colour, 1.3))
    for z in (-half * 0.05, half * 0.8):
        body.side_detail(z, 0.5, z + 1.1, 2.45, (36, 40, 44))
        body.side_detail(z + 0.08, 0.6, z + 0.5, 2.35, (74, 86, 96))
        body.side_detail(z + 0.6, 0.6, z + 1.02, 2.35, (74, 86, 96))
    for z in (-half * 0.55, half * 0.6):
        body.wheel(z, 0.5)
    _dress_ends(body, pose, colour)
    paint_solid(canvas, body, pose, BUS)


def _dress_ends(body: Solid, pose: Pose, colour: Colour) -> None:
    rear_low, rear_high, front_high, front_low = (body.strips[i] for i in (0, 1, 3, 4))
    _tail(rear_low, pose, 0.3, 0.75, 0.1)
    rear_low.on((0.2, 0.1, 0.8, 0.55), _shine(colour, 0.7))
    rear_low.on((0.42, 0.62, 0.58, 0.75), (226, 226, 226))
    _glass(rear_high, (0.1, 0.12, 0.9, 0.68))
    rear_high.on((0.25, 0.76, 0.75, 0.92), (250, 170, 40, 120))
    _head(front_low, pose, 0.5, 0.75, 0.14)
    front_low.on((0.42, 0.45, 0.58, 0.6), (226, 226, 226))
    front_low.on((0.0, 0.75, 1.0, 0.92), (26, 28, 30))
    _glass(front_high, (0.04, 0.3, 0.96, 1.0))
    front_high.on((0.2, 0.06, 0.8, 0.24), (250, 170, 40, 120))


def tram(
    canvas: Canvas, rng: np.random.Generator, pose: Pose, colour: Colour, length: float, lift: float = 0.0
) -> None:
    """A tram or train of one or more cars with rounded noses; `lift` metres above the ground (on a bridge)."""
    cars = max(1, round(length / 12))
    bounds = np.linspace(-length / 2, length / 2, cars + 1)
    spans = list(pairwise(bounds.tolist()))
    towards = canvas.camera.depth(pose.world(np.array([[0, 0, -1.0], [0, 0, 1.0]])))
    for rear, front in spans[::-1] if towards[0] < towards[1] else spans:
        _tram_car(canvas, pose, colour, (rear + 0.15, front - 0.15), lift, rng.random() < 0.7)


def _tram_car(canvas: Canvas, pose: Pose, colour: Colour, span: tuple[float, float], lift: float, band: bool) -> None:
    (rear, front), high, wide = span, 3.5, 1.25
    body = Solid(
        [
            (rear + 0.1, lift + 0.2, wide * 0.9),
            (rear - 0.1, lift + 1.2, wide),
            (rear + 0.35, lift + 3.1, wide * 0.9),
            (rear + 0.9, lift + high, wide * 0.8),
            (front - 0.9, lift + high, wide * 0.8),
            (front - 0.35, lift + 3.1, wide * 0.9),
            (front + 0.1, lift + 1.2, wide),
            (front - 0.1, lift + 0.2, wide * 0.9),
        ],
        colour,
    )
    body.side_detail(rear, lift + 0.2, front, lift + 0.55, (50, 50, 54))
    _pane_row(body, rear + 0.7, front - 0.7, lift + 1.5, lift + 2.6, 1.5)
    if band:
        body.side_detail(rear, lift + 0.95, front, lift + 1.25, (236, 236, 230))
    for z in (rear * 0.6 + front * 0.4, rear * 0.25 + front * 0.75):
        body.side_detail(z, lift + 0.5, z + 1.2, lift + 2.65, (62, 72, 80))
        body.side_detail(z + 0.57, lift + 0.5, z + 0.63, lift + 2.65, (30, 30, 34))
    for low, pane, lamp in ((0, 1, _tail), (6, 5, _head)):
        lamp(body.strips[low], pose, 0.4, 0.62, 0.1)
        body.strips[low].on((0.1, 0.7, 0.9, 0.8), (236, 236, 230))
        _glass(body.strips[pane], (0.06, 0.08, 0.94, 0.88) if pane == 1 else (0.06, 0.12, 0.94, 0.92))
    body.strips[3].on((0.3, 0.3, 0.7, 0.7), (110, 112, 116))
    paint_solid(canvas, body, pose, TRAIN)
