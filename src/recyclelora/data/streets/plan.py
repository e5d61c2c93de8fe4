"""The plan of one street while it is drawn up: its type, what waits to be painted, and the shadows it casts."""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from recyclelora.data.streets import plants as plants
from recyclelora.data.streets.canvas import Camera, Canvas, Colour
from recyclelora.data.streets.looks import Look
from recyclelora.data.streets.textures import Bytes, Floats

ROAD, WALK, BUILDING, TERRAIN, SKY = 0, 1, 2, 9, 10
FAR = 320.0
# No camera sees ground nearer than this; starting there keeps most ground clear of the near plane.
NEAREST = 2.4
Span = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """One type of street: widths in metres of what lies on either side of the middle, and what it is lined with."""

    half: float
    parking: bool
    verge: float
    walk: float
    lawn: float
    lining: str
    people: float
    traffic: float

    @property
    def lanes(self) -> int:
        """Driving lanes on each side."""
        return max(1, int(self.drivable / 3.2))

    @property
    def lane_width(self) -> float:
        """Width of one lane in metres."""
        return self.drivable / self.lanes

    @property
    def drivable(self) -> float:
        """Metres of each half of the road that nobody parks on."""
        return self.half - (2.1 if self.parking else 0.3)


KINDS = {
    "avenue": Kind(8.4, True, 1.6, 4.0, 0.0, "fronts", 9, 0.85),
    "narrow": Kind(3.9, True, 0.0, 1.9, 0.0, "fronts", 8, 0.45),
    "suburb": Kind(4.2, True, 1.3, 1.7, 5.0, "houses", 5, 0.4),
    "plaza": Kind(5.2, False, 0.0, 7.5, 0.0, "fronts", 18, 0.6),
    "highway": Kind(10.5, False, 2.5, 0.0, 3.0, "barrier", 0, 1.0),
    "park": Kind(5.0, True, 0.0, 3.2, 6.0, "green", 8, 0.5),
}
ODDS = (0.26, 0.2, 0.18, 0.14, 0.1, 0.12)


@dataclass
class Painting:
    """What the painter hands to the camera: arrays at the output size, before weather, light and lens.

    `colour` uint8 (h, w, 4) RGB-glow, `labels` uint8 (h, w), `nearness` float32 (h, w) in 1/metres,
    `ground` uint8 (h, w): 0 elsewhere, 1 road, 2 pavement, 3 terrain; `sunlit` float32 (h, w) in 0..1;
    `lamps` (n, 3) street-lamp positions in metres.
    """

    colour: Bytes
    labels: Bytes
    nearness: Floats
    ground: Bytes
    sunlit: Floats
    lamps: Floats
    camera: Camera


@dataclass
class Street:
    """A street being planned: things to paint later by distance, and ground shadows to cast."""

    rng: np.random.Generator
    look: Look
    kind: Kind
    canvas: Canvas
    crossing: float
    rails: float | None
    items: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    shadows: list[Floats] = field(default_factory=list)
    dapples: list[Floats] = field(default_factory=list)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, z: float, paint: Callable[[], None]) -> None:
        """Paint something later, after all that is farther than z metres."""
        self.items.append((z, paint))

    def chance(self, odds: float) -> bool:
        """True with these odds."""
        return bool(self.rng.random() < odds)

    def pick(self, options: tuple[Colour, ...]) -> Floats:
        """A colour of a palette, slightly off."""
        return np.clip(np.array(options[self.rng.integers(len(options))]) + self.rng.normal(0, 6, 3), 8, 250)

    def gap(self, z: float, margin: float = 0.0) -> bool:
        """True if z lies on the crossing road."""
        return abs(z - self.crossing) < 5.5 + margin

    def cast(self, footprint: Floats, high: float, dappled: bool = False) -> None:
        """Note the ground shadow, a polygon (n, 3), of an upright prism over a footprint (n, 2)."""
        sun = self.canvas.light.sun
        reach = min(high / sun[1], 40.0)
        offset = np.array([-sun[0], -sun[2]]) * reach
        hull = cv2.convexHull(np.vstack([footprint, footprint + offset]).astype(np.float32))[:, 0]
        if hull[:, 1].max() > NEAREST and hull[:, 1].min() < 90:
            flat = np.zeros((len(hull), 3))
            flat[:, ::2] = hull
            (self.dapples if dappled else self.shadows).append(flat)

    def cast_box(self, x: float, z: float, wide: float, deep: float, high: float, dappled: bool = False) -> None:
        """Note the shadow of an upright box centred on (x, z)."""
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (wide / 2, deep / 2) + (x, z)
        self.cast(corners, high, dappled)

    def tree(self, x: float, z: float) -> None:
        """Plant a street tree of this city."""
        if z < 4:
            return
        city, rng = self.look.city, self.rng
        self.add(z, lambda: plants.tree(self.canvas, rng, x, z, city.species, self.pick(city.leaves)))
        self.cast_box(x, z, 2.6, 2.6, 5.0, dappled=True)

    def bush(self, x: float, z: float, size: float) -> None:
        """Plant a shrub."""
        if z > 4:
            self.add(z, lambda: plants.bush(self.canvas, self.rng, x, z, self.pick(self.look.city.leaves), size))
            self.cast_box(x, z, size, size, size, dappled=True)
