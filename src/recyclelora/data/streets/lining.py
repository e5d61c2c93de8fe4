"""What lines the `streets`: rows of fronts, houses in gardens, barriers, parks, and the view at the far end."""

import numpy as np

from recyclelora.data.streets.brush import paint_face
from recyclelora.data.streets.canvas import Colour
from recyclelora.data.streets.facades import Facade, draw_front
from recyclelora.data.streets.panels import panel
from recyclelora.data.streets.plan import BUILDING, FAR, Span, Street
from recyclelora.data.streets.plants import PLANT
from recyclelora.data.streets.props import gantry
from recyclelora.data.streets.textures import Floats, cutout, fractal, to_bytes


def paint_backdrop(street: Street) -> None:
    """Hills, a skyline and whatever closes the street at its far end."""
    rng = street.rng
    if street.chance(0.6):
        _hills(street)
    if street.chance(0.6):
        for _ in range(rng.integers(3, 8)):
            wide, high = rng.uniform(10, 26), rng.uniform(14, 60)
            origin = (rng.uniform(-190, 190), 0.0, rng.uniform(210, 290))
            style = Facade.drawn(rng, street.look.city, 0.0)
            _hang(street, style, origin, (1, 0, 0), (wide, high), 1.6)
    close = rng.uniform(75, 170)
    if street.kind.lining == "fronts" and street.chance(0.6):
        for x in np.arange(-34, 34, 13.0):
            _hang_later(street, (x, 0, close), (1, 0, 0), (13, rng.uniform(9, 24)))
    else:
        for x in rng.uniform(-30, 30, 9):
            street.tree(float(x), close + rng.uniform(-8, 8))


def _hills(street: Street) -> None:
    rng, canvas = street.rng, street.canvas
    x = np.linspace(-420, 420, 60)
    ridge = 16 + 10 * np.sin(x / rng.uniform(50, 90) + rng.uniform(0, 6)) + np.cumsum(rng.normal(0, 1.1, 60))
    outline = np.column_stack([x, np.clip(ridge, 3, 60), np.full(60, FAR)])
    base = np.array([[420, -2, FAR], [-420, -2, FAR]])
    colour = (np.array((78, 100, 66)) + rng.normal(0, 8, 3)) * canvas.light.shade((0, 0.7, -0.7))
    canvas.fill(canvas.camera.project(np.vstack([outline, base])), canvas.surface(PLANT, FAR), colour)


def _hang(street: Street, style: Facade, origin: Colour, along: Colour, size: Span, ppm: float) -> None:
    """Draw a house front and hang it on the plane through origin, shaded for the side it faces."""
    if not street.canvas.seen(street.canvas.rectangle(origin, along, (0, 1, 0), size)):
        return
    picture = draw_front(street.rng, style, size, ppm)
    normal = (-np.sign(origin[0]), 0.0, 0.0) if along[0] == 0 else (0.0, 0.0, -1.0)
    street.canvas.textured(origin, along, (0, 1, 0), size, picture, BUILDING, normal)


def _hang_later(street: Street, origin: Colour, along: Colour, size: Span) -> None:
    style = Facade.drawn(street.rng, street.look.city, street.look.lit_windows)
    street.add(origin[2] + 9, lambda: _hang(street, style, origin, along, size, 7.0))


def line_side(street: Street, side: int) -> None:
    """Everything along one side of the street."""
    kind = street.kind
    edge = kind.half + kind.verge + kind.walk
    if kind.lining == "fronts":
        _fronts(street, side, edge)
    elif kind.lining == "houses":
        _gardens(street, side, edge)
    elif kind.lining == "barrier":
        _barriers(street, side, edge)
    else:
        _greenery(street, side, edge)


def _fronts(street: Street, side: int, edge: float) -> None:
    rng, city = street.rng, street.look.city
    tall = rng.integers(*city.storeys, endpoint=True)
    z, exposed = rng.uniform(-9, -3), False
    while z < 105:
        wide = rng.uniform(9, 19)
        if street.gap(z + wide / 2, wide / 2 + 2):
            if z < street.crossing:
                wide = max(0.0, street.crossing - 8 - z)
            if wide < 5:
                z, exposed = street.crossing + 8, True
                continue
        storeys = int(np.clip(tall + rng.integers(-1, 2), 1, 9))
        if street.chance(0.07):
            _yard(street, side, edge, (z, z + wide))
            exposed = True
        else:
            _building(street, side, edge + rng.choice((0, 0, 0.3)), (z, z + wide), storeys, exposed)
            exposed = False
        z += wide
        if street.crossing > z and street.crossing - 8 - z < 0.5:
            z, exposed = street.crossing + 8, True


def _building(street: Street, side: int, edge: float, span: Span, storeys: int, exposed: bool = True) -> None:
    style = Facade.drawn(street.rng, street.look.city, street.look.lit_windows)
    high = style.storey * (storeys + 0.15) + 0.8
    near = max(span[0], 2.0)
    ppm = float(np.clip(300 / near, 5, 22))
    x = side * edge

    def paint() -> None:
        if span[0] > 3 and exposed:
            _hang(street, style, (x, 0, span[0]), (side, 0, 0), (14, high), min(ppm, 14))
        elif span[0] > 3:
            end = np.array(
                [[x, 0, span[0]], [x + side * 13, 0, span[0]], [x + side * 13, high, span[0]], [x, high, span[0]]]
            )
            paint_face(street.canvas, end, [], np.array((0, 0, -1.0)), style.wall, BUILDING)
        _hang(street, style, (x, 0, span[0]), (0, 0, 1), (span[1] - span[0], high), ppm)
        _mansard(street, side, x, span, high)

    street.add(span[1] + 0.01 * edge, paint)
    street.cast_box(x + side * 6, sum(span) / 2, 12, span[1] - span[0], high)


def _mansard(street: Street, side: int, x: float, span: Span, high: float) -> None:
    """A steep roof storey: its slope to the street where that can be seen, and its end."""
    roof = street.pick(((92, 60, 50), (70, 72, 78), (110, 74, 58), (60, 56, 56)))
    (near, far), top, inner = span, high + 2.4, x + side * 1.3
    slope, normal = (
        np.array([[x, high, near], [x, high, far], [inner, top, far], [inner, top, near]]),
        (-side * 0.88, 0.47, 0),
    )
    if normal @ (street.canvas.camera.centre - slope[0]) > 0:
        paint_face(street.canvas, slope, [], np.array(normal), roof, BUILDING)
    if near > 3:
        back = x + side * 13
        end = np.array([[x, high, near], [inner, top, near], [back, top, near], [back, high, near]])
        paint_face(street.canvas, end, [], np.array((0, 0, -1.0)), roof * 1.1, BUILDING)


def _yard(street: Street, side: int, edge: float, span: Span) -> None:
    """A gap between houses: a wall or fence with trees behind it."""
    kind = "wall" if street.chance(0.55) else "fence"
    panel(street, kind, side * edge, span, street.rng.uniform(1.8, 2.8))
    for z in street.rng.uniform(*span, 3):
        street.tree(side * (edge + street.rng.uniform(2.5, 6)), float(z))


def _gardens(street: Street, side: int, edge: float) -> None:
    """Detached houses behind hedges, fences and low walls."""
    rng = street.rng
    z = rng.uniform(-8, 0)
    while z < 110:
        wide = rng.uniform(8, 12)
        if street.gap(z + wide / 2, wide / 2 + 1):
            z = street.crossing + 7.5
            continue
        _house(street, side, edge + street.kind.lawn, (z, z + wide))
        border = ("hedge", "fence", "wall", "none")[rng.choice(4, p=(0.36, 0.3, 0.2, 0.14))]
        if border != "none":
            panel(street, border, side * (edge + 0.15), (z - 1.5, z + wide + 1.5), rng.uniform(0.8, 1.7))
        for _ in range(rng.integers(0, 3)):
            street.tree(side * (edge + rng.uniform(1, 4)), z + rng.uniform(0, wide))
        for _ in range(rng.integers(0, 3)):
            street.bush(side * (edge + rng.uniform(0.8, 4)), z + rng.uniform(0, wide), rng.uniform(0.7, 1.6))
        z += wide + rng.uniform(3, 6)


def _house(street: Street, side: int, edge: float, span: Span) -> None:
    style = Facade.drawn(street.rng, street.look.city, street.look.lit_windows)
    storeys = int(street.rng.integers(1, 3))
    high, deep = style.storey * storeys + 0.9, street.rng.uniform(7, 10)
    rise = street.rng.uniform(2.2, 3.8)
    roof = street.pick(((128, 66, 50), (84, 78, 78), (104, 60, 48), (66, 62, 64)))
    x, ppm = side * edge, float(np.clip(330 / max(span[0], 4.0), 6, 22))
    plain = Facade(**{**style.__dict__, "shops": False})

    def paint() -> None:
        if span[0] > 3:
            _hang(street, plain, (x, 0, span[0]), (side, 0, 0), (deep, high), ppm)
            gable = np.array(
                [[x, high, span[0]], [x + side * deep, high, span[0]], [x + side * deep / 2, high + rise, span[0]]]
            )
            paint_face(street.canvas, gable, [], np.array((0, 0, -1.0)), style.wall, BUILDING)
        _hang(street, plain, (x, 0, span[0]), (0, 0, 1), (span[1] - span[0], high), ppm)
        _roof(street, (x - side * 0.4, side * deep / 2 + side * 0.4), span, high - 0.15, rise + 0.15, roof)

    street.add(span[1] + 0.01 * edge, paint)
    street.cast_box(x + side * deep / 2, sum(span) / 2, deep, span[1] - span[0], high + rise / 2)


def _roof(street: Street, across: Span, span: Span, high: float, rise: float, colour: Floats) -> None:
    """The slope towards the street, with rows of tiles."""
    start, reach = across
    slope = np.hypot(reach, rise)
    normal = np.array([-np.sign(reach) * rise, abs(reach), 0]) / slope
    tint = colour * (1 - street.look.snow) + 236 * street.look.snow
    tiles = np.empty((48, 96, 4), np.float32)
    grain = cutout(fractal("roof", 512, 7, 0.7), street.rng, 48, 96).astype(np.float32) / 128
    rows = np.where(np.arange(48) % 4 == 0, 0.72, 1.03) * (1 - street.look.snow) + street.look.snow
    tiles[:] = [*tint, 0]
    tiles *= (rows[:, None] * (0.75 + 0.25 * grain))[..., None]
    origin, size = (start, high, span[0] - 0.4), (span[1] - span[0] + 0.8, float(slope))
    up = (reach / slope, rise / slope, 0)
    street.canvas.textured(origin, (0, 0, 1), up, size, to_bytes(tiles), BUILDING, normal.tolist())


def _barriers(street: Street, side: int, edge: float) -> None:
    """Noise walls, crash barriers and wire fences, with trees on the bank behind."""
    rng = street.rng
    kind, high = (("wall", rng.uniform(2.6, 4.2)), ("fence", rng.uniform(1.1, 2.2)), ("wall", rng.uniform(0.9, 1.2)))[
        rng.choice(3, p=(0.5, 0.3, 0.2))
    ]
    for z in np.arange(-6, 150, 12.0):
        if not street.gap(z + 6, 8):
            panel(street, kind, side * edge, (z, z + 12), high)
    for z in np.arange(4, 110, 6.5):
        if street.chance(0.8) and not street.gap(z, 2):
            street.tree(side * (edge + rng.uniform(2.5, 9)), z + rng.uniform(-2, 2))
    if side > 0 and street.chance(0.6):
        z = rng.uniform(22, 60)
        half = street.kind.half + 0.8
        street.add(z, lambda: gantry(street.canvas, rng, -half, half, z))


def _greenery(street: Street, side: int, edge: float) -> None:
    """A park: hedges, lawns, railings and many trees, sometimes houses behind."""
    rng = street.rng
    if street.chance(0.6):
        border = "hedge" if street.chance(0.55) else "fence"
        for z in np.arange(-4, 80, 9.0):
            if not street.gap(z + 4.5, 6):
                panel(street, border, side * (edge + 0.2), (z, z + 9), rng.uniform(0.9, 1.3))
    for z in np.arange(5, 90, 5.0):
        if not street.gap(z, 2):
            street.tree(side * (edge + rng.uniform(1.2, 11)), z + rng.uniform(-1.5, 1.5))
    for z in rng.uniform(6, 50, 5):
        street.bush(side * (edge + rng.uniform(1, 6)), float(z), rng.uniform(0.8, 2.0))
    if street.chance(0.5):
        for z in np.arange(20, 120, 20.0):
            if not street.gap(z + 8, 10):
                _building(street, side, edge + 16, (z, z + 15), int(rng.integers(2, 6)))
