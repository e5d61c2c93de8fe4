"""Opens a street, fills it with furniture, traffic and people, and paints it far to near."""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from recyclelora.data.streets import people as people
from recyclelora.data.streets import props as props
from recyclelora.data.streets import vehicles as cars
from recyclelora.data.streets.brush import paint_face
from recyclelora.data.streets.canvas import HEIGHT, IGNORE, SIZE, SUPER, WIDTH, Camera, Canvas, Light
from recyclelora.data.streets.ground import paint_ground, sunlit
from recyclelora.data.streets.lining import line_side, paint_backdrop
from recyclelora.data.streets.looks import Look
from recyclelora.data.streets.panels import panel_picture
from recyclelora.data.streets.plan import KINDS, ODDS, SKY, Kind, Painting, Street
from recyclelora.data.streets.solids import Pose


def paint_street(look: Look, seed: list[int]) -> Painting:
    """Plan and paint the street of this seed in this look's city; only the light and `lit` things follow the look."""
    rng = np.random.default_rng([*seed, 0])
    kind = list(KINDS.values())[rng.choice(len(KINDS), p=ODDS)]
    street = _open_street(look, kind, rng, _light(look, np.random.default_rng([*seed, 1])))
    ground = paint_ground(street)
    paint_backdrop(street)
    for side in (-1, 1):
        line_side(street, side)
        _furnish(street, side)
    _traffic(street)
    _crowd(street)
    if street.chance(0.14) and kind.lining != "houses":
        _bridge(street)
    for _, paint in sorted(street.items, key=lambda item: -item[0]):
        paint()
    if street.chance(0.55):
        _hood(street)
    return _finish(street, ground)


def _open_street(look: Look, kind: Kind, rng: np.random.Generator, light: Light) -> Street:
    city = look.city
    camera = Camera.placed(
        kind.lane_width * (rng.integers(kind.lanes) + 0.5 + rng.normal(0, 0.07)),
        rng.uniform(*city.camera_height),
        rng.uniform(*city.hfov),
        rng.normal(0, 4.0),
        rng.normal(0.8, 1.8),
        rng.normal(0, 0.6),
    )
    canvas = Canvas(camera, light, look.snow)
    canvas.surfaces[:] = canvas.plane_surface(SKY, (0.0, 0.0, 0.0))
    crossing = rng.uniform(16, 55) if rng.random() < (0.2 if kind.lining == "barrier" else 0.62) else -99.0
    wants_rails = kind.lining == "fronts" and kind.half > 4.5 and rng.random() < 0.55
    rails = float(rng.choice((-1.8, 1.8))) if wants_rails else None
    return Street(rng, look, kind, canvas, crossing, rails)


def _light(look: Look, rng: np.random.Generator) -> Light:
    height, round_ = np.radians(rng.uniform(*look.sun_height)), rng.uniform(0, 2 * np.pi)
    sun = (np.cos(height) * np.sin(round_), np.sin(height), np.cos(height) * np.cos(round_))
    return Light((float(sun[0]), float(sun[1]), float(sun[2])), look.sun_rgb, look.sky_rgb)


def _furnish(street: Street, side: int) -> None:
    """Trees in the verge, lamp posts, signs, bins, bollards and traffic lights on one side."""
    rng, kind = street.rng, street.kind
    kerb = side * (kind.half + 0.6)
    if (kind.verge > 1 and kind.lining != "barrier") or street.chance(0.25):
        for z in np.arange(rng.uniform(6, 12), 100, rng.uniform(7, 12)):
            if not street.gap(z, 3):
                street.tree(kerb + side * 0.3, z)
    if street.chance(0.75):
        for z in np.arange(rng.uniform(5, 20), 110, 24.0):
            _lamp(street, kerb, z)
    if kind.lining in ("fronts", "green"):
        _clutter(street, side, kerb)
    _signals(street, kerb)


def _clutter(street: Street, side: int, kerb: float) -> None:
    rng, canvas = street.rng, street.canvas
    for z in rng.uniform(6, 40, rng.integers(0, 3)):
        _post(street, kerb + side * rng.uniform(0.2, 1), float(z), partial(props.bin_box, canvas, rng))
    if street.chance(0.25):
        for z in np.arange(5, 40, rng.uniform(1.8, 3)):
            _post(street, kerb - side * 0.2, z, partial(props.bollard, canvas))


def _signals(street: Street, kerb: float) -> None:
    rng, canvas = street.rng, street.canvas
    signs = street.look.city.signs
    for z in rng.uniform(6, 45, rng.integers(1, 4)):
        _post(street, kerb, float(z), partial(props.traffic_sign, canvas, rng, kinds=signs))
    if street.crossing > 0 or street.chance(0.15):
        first = max(6.0, street.crossing - 6.4) if street.crossing > 0 else rng.uniform(10, 30)
        for z in (first, first + 14):
            light = partial(props.traffic_light, canvas, rng, overhead=street.chance(0.4))
            _post(street, kerb, z, light, at_gap=True)


def _post(street: Street, x: float, z: float, paint: Callable[[float, float], None], at_gap: bool = False) -> None:
    if at_gap or not street.gap(z, 1):
        street.add(z, lambda: paint(x, z))
        street.cast_box(x, z, 0.15, 0.15, 2.5)


def _lamp(street: Street, x: float, z: float) -> None:
    city = street.look.city
    if street.gap(z, 1):
        return
    wooden = city.wooden_poles and street.chance(0.7)
    street.add(z, lambda: props.lamp_post(street.canvas, street.rng, x, z, street.look.lamps_on, wooden))
    street.cast_box(x, z, 0.16, 0.16, 7.0)
    street.lamps.append((x * 0.85, 7.0, z))


def _traffic(street: Street) -> None:
    kind, rng = street.kind, street.rng
    for lane in range(kind.lanes):
        for side in (-1, 1):
            x = side * (lane + 0.5) * kind.lane_width
            z = rng.uniform(8, 26) / kind.traffic
            while z < 75:
                if not street.gap(z, -1) and (street.rails is None or abs(x - street.rails) > 1.5):
                    _vehicle(street, x + rng.normal(0, 0.15), z, 0 if side > 0 else 180)
                z += rng.uniform(8, 34) / kind.traffic
    if kind.parking:
        for side in (-1, 1):
            _parked(street, side)
    if street.rails is not None and street.chance(0.8):
        z, length = rng.uniform(18, 60), rng.uniform(14, 34)
        paint = street.pick(((190, 30, 34), (40, 110, 70), (230, 190, 60), (220, 222, 224), (40, 90, 160)))
        pose = Pose(street.rails, z + length / 2, 0 if street.rails > 0 else 180, street.look.lamps_on)
        street.add(z, lambda: cars.tram(street.canvas, rng, pose, paint, length))
        street.cast_box(street.rails, z + length / 2, 2.5, length, 3.4)
    if street.crossing > 0:
        for _ in range(rng.integers(0, 3)):
            _vehicle(street, rng.uniform(-16, 16), street.crossing + rng.choice((-2.3, 2.3)), rng.choice((-90, 90)))


def _parked(street: Street, side: int) -> None:
    rng, z = street.rng, street.rng.uniform(4, 12)
    odds = rng.uniform(0.3, 0.95)
    while z < 52:
        if street.chance(odds) and not street.gap(z, 6):
            _vehicle(
                street, side * (street.kind.half - 1.05), z, 0 if side > 0 or street.chance(0.4) else 180, parked=True
            )
        z += rng.uniform(5.4, 7.5)


def _vehicle(street: Street, x: float, z: float, heading: float, parked: bool = False) -> None:
    """A random vehicle with its shadow; big ones keep some distance."""
    rng, look = street.rng, street.look
    draw, canvas = rng.random(), street.canvas
    pose = Pose(x, z, heading + rng.normal(0, 1.5), look.lamps_on and not parked)
    paint = street.pick(look.city.paints)
    if draw < 0.1 and z > 13 and not parked:
        colour = street.pick(((196, 40, 40), (230, 190, 50), (40, 90, 160), (220, 220, 216), (50, 120, 80)))
        street.add(z - 3, lambda: cars.bus(canvas, rng, pose, colour))
        _cast_vehicle(street, pose, 2.5, 11.5, 3.0)
    elif draw < 0.21 and z > 11 and not parked:
        street.add(z - 2, lambda: cars.truck(canvas, rng, pose, paint))
        _cast_vehicle(street, pose, 2.4, 8.0, 3.2)
    elif draw < (0.06 if parked else 0.29):
        turn = 1.0 if abs(abs(heading) - 90) < 9 else rng.uniform(0.05, 0.3)
        street.add(z, lambda: people.motorcycle(canvas, rng, x, z, turn, not parked))
        street.cast_box(x, z, 0.6, 1.8, 1.5)
    else:
        kind = look.city.cars[rng.integers(len(look.city.cars))]
        street.add(z, lambda: cars.car(canvas, rng, pose, paint, kind, look.city.yellow_plates))
        _cast_vehicle(street, pose, 1.8, 4.3, 1.3)


def _cast_vehicle(street: Street, pose: Pose, wide: float, long: float, high: float) -> None:
    box = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]]) * (wide / 2, 0, long / 2)
    street.cast(pose.world(box)[:, [0, 2]], high)


def _crowd(street: Street) -> None:
    """People on the pavements and zebras, cyclists and parked bicycles."""
    rng, kind = street.rng, street.kind
    for _ in range(rng.poisson(kind.people)):
        side, z = rng.choice((-1, 1)), 5.5 + 34 * rng.random() ** 1.6
        inner = kind.half + kind.verge
        x = side * rng.uniform(inner + 0.3, inner + max(kind.walk - 0.4, 0.6))
        if street.crossing > 0 and street.chance(0.22):
            x, z = rng.uniform(-kind.half, kind.half), street.crossing - 8 + rng.normal(0, 0.5)
        _walker(street, x, max(z, 5.5))
    for _ in range(rng.poisson(1.3 if kind.people else 0.15)):
        side, z = rng.choice((-1, 1)), rng.uniform(7, 32)
        x = side * (kind.half - (2.6 if kind.parking else 0.7))
        _bike(street, x, z, rng.uniform(0.05, 0.35) if street.chance(0.7) else rng.uniform(0.7, 1), True)
    if kind.people and street.chance(0.5):
        side, start = rng.choice((-1, 1)), rng.uniform(6, 22)
        motor = street.chance(0.45)
        for i in range(rng.integers(1, 5)):
            x = side * (kind.half + kind.verge + 0.6 + rng.normal(0, 0.1))
            _bike(street, x, start + 0.8 * i, rng.uniform(0.5, 1.0), False, motor)


def _walker(street: Street, x: float, z: float) -> None:
    street.add(z, lambda: people.person(street.canvas, street.rng, x, z))
    street.cast_box(x, z, 0.45, 0.3, 1.65)


def _bike(street: Street, x: float, z: float, turn: float, ridden: bool, motor: bool = False) -> None:
    paint = people.motorcycle if motor else people.bicycle
    street.add(z, lambda: paint(street.canvas, street.rng, x, z, turn, ridden))
    street.cast_box(x, z, 0.4 + turn, 1.4 - turn, 1.5 if ridden else 0.8)


def _bridge(street: Street) -> None:
    """A railway bridge over the street with a train on it; the bridge itself is unlabelled in Cityscapes."""
    rng, canvas = street.rng, street.canvas
    z, deck = rng.uniform(38, 85), rng.uniform(6.0, 7.5)
    colour, paint = (
        street.pick(((120, 118, 114), (110, 84, 70))),
        street.pick(((200, 40, 40), (214, 214, 210), (40, 90, 160))),
    )
    pose = Pose(rng.uniform(-14, 14), z + 2.5, 90)
    has_train = street.chance(0.75)

    def draw() -> None:
        if has_train:
            cars.tram(canvas, rng, pose, paint, 48, lift=deck + 0.8)
        picture = panel_picture(street, "wall", 40, 1.6)
        canvas.textured((-90, deck, z), (1, 0, 0), (0, 1, 0), (180, 1.7), picture, IGNORE, (0, 0.2, -0.8))
        for side in (-1, 1):
            x = side * (street.kind.half + 1.0)
            pillar = np.array([[x - 0.6, 0, z], [x + 0.6, 0, z], [x + 0.6, deck, z], [x - 0.6, deck, z]])
            paint_face(canvas, pillar, [], np.array((0, 0, -1.0)), colour, IGNORE)

    street.add(z, draw)
    street.cast_box(0, z + 2, 180, 5, deck)


def _hood(street: Street) -> None:
    """The bonnet of the camera's own car: ignored, as in Cityscapes."""
    rng, canvas = street.rng, street.canvas
    high, lean = rng.uniform(22, 60), rng.uniform(-60, 60)
    surface = canvas.surface(IGNORE, 1.5)
    colour = street.pick(((40, 42, 46), (120, 122, 126), (30, 34, 52)))
    for part, gain in ((1.0, 0.75), (0.86, 0.9), (0.6, 1.1), (0.3, 1.35)):
        canvas.disc(
            np.array([WIDTH / 2 + lean, HEIGHT + 40]),
            (WIDTH * 0.62 * part**0.3, (high + 40) * part),
            surface,
            colour * gain,
        )


def _finish(street: Street, ground: tuple[int, int, int]) -> Painting:
    canvas = street.canvas
    chosen = canvas.surfaces[::SUPER, ::SUPER]
    which = np.zeros(len(canvas.labels), np.uint8)
    which[list(ground)] = (1, 2, 3)
    small = cv2.resize(canvas.colour, SIZE[::-1], interpolation=cv2.INTER_AREA)
    lamps = np.array(street.lamps).reshape(-1, 3)
    return Painting(small, canvas.label_map(), canvas.nearness(), which[chosen], sunlit(street), lamps, canvas.camera)
