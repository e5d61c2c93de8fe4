"""The ground of the `streets` scenes: surfaces, kerbs, markings and wear, and what is laid on them later."""

from itertools import pairwise

import cv2
import numpy as np

from recyclelora.data.streets.canvas import SIZE, SUPER, Camera, Colour
from recyclelora.data.streets.plan import FAR, NEAREST, ROAD, TERRAIN, WALK, Span, Street
from recyclelora.data.streets.textures import Bytes, Floats, fractal


def _strip(street: Street, surface: int, colour: Colour, x: Span, z: Span) -> None:
    """Fill the ground rectangle between two x and two z (metres)."""
    corners = np.array([[x[0], 0, z[0]], [x[1], 0, z[0]], [x[1], 0, z[1]], [x[0], 0, z[1]]])
    street.canvas.fill(street.canvas.camera.project(corners), surface, colour)


def paint_ground(street: Street) -> tuple[int, int, int]:
    """Paint all ground with its markings; returns the surface numbers of road, pavement and terrain."""
    canvas, kind, rng = street.canvas, street.kind, street.rng
    plane = tuple(np.linalg.inv(canvas.camera.homography((0, 0, 0), (1, 0, 0), (0, 0, 1)))[2])
    road, walk, terrain = (canvas.plane_surface(label, plane) for label in (ROAD, WALK, TERRAIN))
    shade = np.array(canvas.light.shade((0, 1, 0)))
    tarmac = np.array([1, 1, 1.02]) * rng.uniform(*street.look.city.tarmac) * shade
    paving = (
        np.array(((156, 150, 142), (140, 138, 136), (168, 156, 140))[rng.integers(3)]) * rng.uniform(0.85, 1.1) * shade
    )
    grass = street.pick(((96, 116, 58), (122, 122, 66), (80, 104, 52), (128, 112, 80))) * shade
    _strip(street, terrain, grass if kind.lining != "fronts" else paving, (-150, 150), (NEAREST, FAR))
    for side in (-1, 1):
        edges = np.cumsum([kind.half, kind.verge, kind.walk, kind.lawn]) * side
        _strip(street, terrain, grass, (edges[0], edges[1]), (NEAREST, FAR))
        _strip(street, walk, paving, (edges[1], edges[2] if kind.lining != "fronts" else side * 60), (NEAREST, FAR))
    far = (street.crossing - 5, street.crossing + 5)
    if street.crossing > 0:
        _strip(street, walk, paving, (-150, 150), (far[0] - 2.5, far[1] + 2.5))
        _strip(street, road, tarmac, (-150, 150), far)
    _strip(street, road, tarmac, (-kind.half, kind.half), (NEAREST, FAR))
    _kerbs(street, walk, paving)
    _wear(street, road, tarmac)
    _markings(street, road, shade)
    return road, walk, terrain


def _kerbs(street: Street, walk: int, paving: Floats) -> None:
    half = street.kind.half
    for side in (-1, 1):
        for z in (
            ((NEAREST, street.crossing - 5), (street.crossing + 5, FAR)) if street.crossing > 0 else ((NEAREST, FAR),)
        ):
            for x0, x1, gain in ((-0.04, 0.06, 0.6), (0.06, 0.24, 1.14), (0.24, 0.29, 0.75)):
                _strip(street, walk, paving * gain, (side * (half + x0), side * (half + x1)), z)


def _wear(street: Street, road: int, tarmac: Floats) -> None:
    """Patches, cracks, wheel tracks, manholes and gutters."""
    rng, half = street.rng, street.kind.half
    for x in np.arange(-half + 0.8, half, 1.65):
        _strip(street, road, tarmac * rng.uniform(0.93, 1.05), (x, x + rng.uniform(0.5, 1.1)), (NEAREST, FAR))
    for side in (-1, 1):
        _strip(street, road, tarmac * 0.8, (side * (half - 0.35), side * (half - 0.04)), (NEAREST, FAR))
    for _ in range(rng.integers(3, 9)):
        x, z, deep = rng.uniform(-half, half - 1), rng.uniform(3, 40), rng.uniform(0.6, 9)
        _strip(street, road, tarmac * rng.choice((0.72, 0.84, 1.14)), (x, x + rng.uniform(0.5, 2.4)), (z, z + deep))
    for _ in range(rng.integers(3, 8)):
        start = rng.uniform((-half, 4), (half, 22))
        path = start + np.cumsum(rng.normal(0, 0.22, (9, 2)) + rng.normal(0, 0.5, 2), axis=0)
        _crack(street, road, path[np.abs(path[:, 0]) < half - 0.1], tarmac * 0.5)
    for _ in range(rng.integers(1, 4)):
        x, z = rng.uniform(-half + 0.5, half - 0.5), rng.uniform(4.5, 30)
        for radius, gain in ((0.36, 0.55), (0.31, 0.92), (0.25, 0.72)):
            _round(street, road, tarmac * gain, (x, z), radius)


def _crack(street: Street, road: int, path: Floats, colour: Colour) -> None:
    for (x0, z0), (x1, z1) in pairwise(path):
        corners = np.array([[x0, 0, z0], [x0 + 0.05, 0, z0], [x1 + 0.05, 0, z1], [x1, 0, z1]])
        street.canvas.fill(street.canvas.camera.project(corners), road, colour)


def _round(street: Street, surface: int, colour: Colour, spot: Span, radius: float) -> None:
    turn = np.arange(16) * (np.pi / 8)
    ring = np.column_stack([spot[0] + radius * np.cos(turn), np.zeros(16), spot[1] + radius * np.sin(turn)])
    street.canvas.fill(street.canvas.camera.project(ring), surface, colour)


def _markings(street: Street, road: int, shade: Floats) -> None:
    kind, rng, city = street.kind, street.rng, street.look.city
    white = np.array((216, 216, 210)) * shade * rng.uniform(0.75, 1.0)
    middle = np.array(city.marking) * shade * rng.uniform(0.8, 1.0)
    abroad = city.yellow_plates
    lanes = kind.lanes
    for x in np.arange(1, lanes) * kind.lane_width:
        for side in (-1, 1):
            _dashes(street, road, white, side * x, rng.uniform(-6, 0))
    if abroad or kind.lining == "barrier":
        for x in (-0.18, 0.1):
            _strip(street, road, middle, (x, x + 0.12), (NEAREST, FAR))
    elif kind.half > 3.5 and street.chance(0.85):
        _dashes(street, road, middle, 0.0, rng.uniform(-6, 0))
    if kind.lining == "barrier" or street.chance(0.35):
        for side in (-1, 1):
            _strip(street, road, white, (side * (kind.half - 0.6), side * (kind.half - 0.45)), (NEAREST, FAR))
    if street.rails is not None:
        for x in (street.rails - 0.76, street.rails + 0.68):
            _strip(street, road, shade * 60, (x - 0.08, x + 0.16), (NEAREST, FAR))
            _strip(street, road, shade * 150, (x, x + 0.07), (NEAREST, FAR))
    if street.crossing > 0:
        _junction(street, road, white, shade)
    elif street.chance(0.3):
        _zebra(street, road, white, rng.uniform(8, 25))


def _dashes(street: Street, road: int, colour: Floats, x: float, start: float) -> None:
    for z in np.arange(start + 7.5, 85, 7.5):
        if not street.gap(z + 2):
            _strip(street, road, colour, (x - 0.07, x + 0.07), (z, z + 3.5))


def _junction(street: Street, road: int, white: Floats, shade: Floats) -> None:
    """No centre line on the crossing itself, zebras on its arms, a stop line before it."""
    near, far, half = street.crossing - 5, street.crossing + 5, street.kind.half
    for z in (near - 4.2, far + 1.0):
        _zebra(street, road, white, z)
    _strip(street, road, white, (0.2, half - 0.3), (near - 5.6, near - 5.1))
    for side in (-1, 1):
        for z in np.arange(near + 0.5, far - 0.4, 1.1):
            _strip(street, road, white, (side * (half + 1.0), side * (half + 3.6)), (z, z + 0.55))


def _zebra(street: Street, road: int, white: Floats, z: float) -> None:
    for x in np.arange(-street.kind.half + 0.4, street.kind.half - 0.6, 1.1):
        _strip(street, road, white, (x, x + 0.55), (z, z + 3.0))


def sunlit(street: Street) -> Floats:
    """float32 (256, 512): how much sun reaches the ground behind each pixel, trees letting spots of it through."""
    full, spots = np.ones(SIZE, np.float32), np.ones(SIZE, np.float32)
    for buffer, hulls in ((full, street.shadows), (spots, street.dapples)):
        for outline in street.canvas.camera.project_all(hulls) if hulls else ():
            if len(outline) > 2:
                cv2.fillConvexPoly(buffer, outline // SUPER, 0.0)
    holes = ground_tile(street.canvas.camera, fractal("dapple", 512, 6, 0.7), 6.0)
    spots = np.maximum(spots, (holes > 150).astype(np.float32) * 0.8)
    soft: Floats = cv2.blur(np.minimum(full, spots), (3, 3))
    return soft


def ground_tile(camera: Camera, tile: Bytes, metres: float) -> Bytes:
    """uint8 (256, 512): a seamless tile, `metres` wide, laid on the ground plane; zero above the horizon."""
    plane = camera.homography((0, 0, 0), (1, 0, 0), (0, 0, 1))
    texel = np.diag([metres / tile.shape[1], metres / tile.shape[0], 1.0])
    top = horizon(camera)
    small = np.array([[1 / SUPER, 0, 0], [0, 1 / SUPER, -top], [0, 0, 1]])
    below = cv2.warpPerspective(
        tile, small @ plane @ texel, (SIZE[1], SIZE[0] - top), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    return np.vstack([np.zeros((top, SIZE[1]), np.uint8), below])


def horizon(camera: Camera) -> int:
    """The first output row that can show ground, at least one row above the bottom."""
    ahead = camera.matrix[:, :3] @ np.array([(-1.0, 0, 1), (0, 0, 1), (1.0, 0, 1)]).T
    return int(np.clip((ahead[1] / ahead[2]).min() / SUPER - 2, 0, SIZE[0] - 2))
