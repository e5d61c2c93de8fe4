"""Shaded painting of single things: a brush for upright shapes at one depth, and flat faces in space."""

import math
from dataclasses import dataclass

import numpy as np

from recyclelora.data.streets.canvas import NEAR, Canvas, Colour, tinted
from recyclelora.data.streets.textures import Floats


@dataclass(frozen=True)
class Brush:
    """Paints in metres around one spot of the world: (right, up) from a point on the ground, facing the camera."""

    canvas: Canvas
    foot: Floats
    scale: float
    depth: float

    @classmethod
    def at(cls, canvas: Canvas, x: float, z: float, y: float = 0.0) -> "Brush":
        """The brush for the world spot (x, y, z) metres."""
        foot, scale = canvas.camera.spot((x, y, z))
        return cls(canvas, foot, scale, canvas.camera.focal / scale)

    def px(self, x: float, y: float) -> Floats:
        """Canvas pixel (2,) of a local position in metres."""
        return self.foot + np.array([x, -y]) * self.scale

    def surface(self, label: int) -> int:
        """A surface number for this spot."""
        return self.canvas.surface(label, self.depth)

    def lit(self, colour: Colour, tilt: float = 0.0) -> Colour:
        """A colour under this scene's light for an upright thing turned `tilt` to the right (-1..1)."""
        side = math.copysign(min(abs(tilt), 1.0), tilt)
        return tinted(colour, self.canvas.light.shade((side, 0.3, -math.sqrt(1.0001 - side * side))))

    def bar(self, surface: int, a: Colour, b: Colour, width: float, colour: Colour) -> None:
        """A round-ended limb or tube from a to b, `width` metres thick, lighter on the sunny side."""
        start, end = self.px(*a), self.px(*b)
        self.canvas.stroke(start, end, width * self.scale, surface, self.lit(colour, -0.75))
        if width * self.scale > 4:
            for offset, part, tilt in ((0.08, 0.72, 0.0), (0.22, 0.36, 0.75)):
                shift = np.array([offset * width * self.scale, 0])
                self.canvas.stroke(
                    start + shift, end + shift, width * self.scale * part, surface, self.lit(colour, tilt)
                )

    def shape(self, surface: int, points: list[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon in local metres; its colour is used as it is."""
        self.canvas.fill(self.foot + np.array(points) * (self.scale, -self.scale), surface, colour)

    def disc(self, surface: int, x: float, y: float, radius: float, colour: Colour, squash: float = 1.0) -> None:
        """A filled circle, `squash` times as wide as high."""
        self.canvas.disc(self.px(x, y), (radius * squash * self.scale, radius * self.scale), surface, colour)


def pick(rng: np.random.Generator, options: tuple[tuple[int, int, int], ...]) -> Floats:
    """A colour of a palette, slightly off."""
    return np.clip(np.array(options[rng.integers(len(options))]) + rng.normal(0, 10, 3), 8, 245)


def outward(corners: Floats, middle: Floats) -> Floats:
    """Unit normal (3,) of a flat polygon, turned away from `middle`."""
    # Corners far apart: neighbouring ones of a lofted side are too close to tell how the side as a whole is turned.
    first, half_way, last = corners[0], corners[len(corners) // 2], corners[-1]
    (ax, ay, az), (bx, by, bz) = (half_way - first).tolist(), (last - half_way).tolist()
    normal = np.array((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))
    normal /= math.sqrt(normal @ normal) + 1e-9
    return normal if normal @ (first - middle) > 0 else -normal


def paint_face(
    canvas: Canvas, corners: Floats, details: list[tuple[Floats, Colour]], normal: Floats, colour: Colour, label: int
) -> None:
    """Fill one shaded face and its details; faces that look up carry the snow."""
    camera = canvas.camera
    outline, *shapes = camera.project_all([corners, *(points for points, _ in details)])
    if not canvas.seen(outline):
        return
    surface = canvas.surface(label, max(float(camera.depth(corners).mean()), NEAR))
    shade = canvas.light.shade(normal.tolist())
    if normal[1] > 0.55 and canvas.snow:
        colour = [c * (1 - canvas.snow) + 235 * canvas.snow for c in colour]
    canvas.fill(outline, surface, tinted(colour, shade))
    for points, (_, paint) in zip(shapes, details, strict=True):
        shines = len(paint) > 3 and paint[3] > 0
        canvas.fill(points, surface, paint if shines else tinted(paint, shade))
