"""Lofted shells in space, with details painted on their faces: what vehicles are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recyclelora.data.streets.brush import outward, paint_face
from recyclelora.data.streets.canvas import Canvas, Colour, split_like
from recyclelora.data.streets.textures import Floats

TYRE = (24, 24, 26)
# Beyond this many metres only the first few details of a face are painted.
DETAIL_REACH, FEW = 26.0, 5
Patch = tuple[float, float, float, float]


@dataclass
class Face:
    """One flat face: corners (n, 3) in metres, colour, and what is painted on top of it.

    `patches` are (s0, t0, s1, t1) rectangles in the face's own 0..1 coordinates (four-cornered faces), `shapes` are
    polygons in metres; both with a colour.
    """

    corners: Floats
    colour: Colour
    patches: list[tuple[Patch, Colour]] = field(default_factory=list)
    shapes: list[tuple[Floats, Colour]] = field(default_factory=list)

    def on(self, patch: Patch, colour: Colour) -> None:
        """Add a rectangular detail."""
        self.patches.append((patch, colour))

    def details(self) -> list[tuple[Floats, Colour]]:
        """All details as (corners, colour), patches first."""
        if not self.patches:
            return self.shapes
        box = np.array([patch for patch, _ in self.patches])
        s, t = box[:, (0, 2, 2, 0), None], box[:, (1, 1, 3, 3), None]
        a, b, c, d = self.corners[:4]
        spread = (a * (1 - s) + b * s) * (1 - t) + (d * (1 - s) + c * s) * t
        return [*zip(spread, (colour for _, colour in self.patches), strict=True), *self.shapes]


@dataclass(frozen=True)
class Pose:
    """Where a vehicle stands: metres, and its heading in degrees (0 drives away from the camera)."""

    x: float
    z: float
    heading: float
    lamps_on: bool = False

    def world(self, points: Floats) -> Floats:
        """Vehicle coordinates (x right, y up, z forward) to the world."""
        c, s = math.cos(math.radians(self.heading)), math.sin(math.radians(self.heading))
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        placed: Floats = points @ turn.T + np.array([self.x, 0, self.z])
        return placed


@dataclass
class Solid:
    """A convex shell lofted through a side profile of (z, y, half width), from the bottom rear over the top."""

    profile: Sequence[tuple[float, float, float]]
    colour: Colour

    def __post_init__(self) -> None:
        spine = np.array(self.profile)
        self.right = np.column_stack([spine[:, 2], spine[:, 1], spine[:, 0]])
        self.left = self.right * np.array([-1, 1, 1])
        self.strips = [
            Face(np.array([self.left[i], self.right[i], self.right[i + 1], self.left[i + 1]]), self.colour)
            for i in range(len(spine) - 1)
        ]
        self.sides = [Face(self.right, self.colour), Face(self.left, self.colour)]

    def side_detail(self, z0: float, y0: float, z1: float, y1: float, colour: Colour) -> None:
        """Paint a rectangle on both sides, in metres along the vehicle."""
        for face, sign in zip(self.sides, (1, -1), strict=True):
            x = sign * max(p[2] for p in self.profile)
            face.shapes.append((np.array([[x, y0, z0], [x, y0, z1], [x, y1, z1], [x, y1, z0]]), colour))

    def wheel(self, z: float, radius: float) -> None:
        """Paint a tyre and its rim on both sides."""
        turn = np.arange(14) * (2 * math.pi / 14)
        ring = np.column_stack([np.zeros(14), np.sin(turn), np.cos(turn)])
        for face, sign in zip(self.sides, (1, -1), strict=True):
            hub = np.array([sign * (max(p[2] for p in self.profile) + 0.01), radius, z])
            for scale, colour in ((1.16, (14, 14, 15)), (1.0, TYRE), (0.62, (120, 122, 126)), (0.2, (60, 60, 64))):
                face.shapes.append((hub + ring * radius * scale, colour))


def paint_solid(canvas: Canvas, solid: Solid, pose: Pose, label: int) -> None:
    """Paint the faces of a solid that look at the camera, each with its details, shaded by its normal."""
    faces = [*solid.strips, *solid.sides]
    corners = [face.corners for face in faces]
    placed = split_like(pose.world(np.concatenate(corners)), corners)
    middle, eye = (placed[-1].mean(0) + placed[-2].mean(0)) / 2, canvas.camera.centre
    seen = []
    for face, outline in zip(faces, placed, strict=True):
        normal, towards = outward(outline, middle), eye - outline[0]
        if normal @ towards > 0:
            seen.append((-float(towards @ towards), face, outline, normal))
    near = float(canvas.camera.depth(middle)) < DETAIL_REACH
    for _, face, outline, normal in sorted(seen, key=lambda entry: entry[0]):
        _paint_detailed(canvas, face, pose, outline, normal, label, near)


def _paint_detailed(
    canvas: Canvas, face: Face, pose: Pose, outline: Floats, normal: Floats, label: int, near: bool
) -> None:
    details = face.details() if near else face.details()[:FEW]
    if details:
        shapes = [points for points, _ in details]
        placed = split_like(pose.world(np.concatenate(shapes)), shapes)
        details = list(zip(placed, (colour for _, colour in details), strict=True))
    paint_face(canvas, outline, details, normal, face.colour, label)
