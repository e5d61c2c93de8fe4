"""The painter of the `streets` scenes: a pinhole camera and a supersampled canvas.

Everything is painted far to near at twice the output size into two buffers that share each polygon: colour (RGB plus
a glow channel for things that shine by themselves) and a surface number. Labels and depth follow from the surface
number alone, so they are exact for what was drawn and no lighting can change them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import cv2
import numpy as np
from numpy.typing import NDArray

from recyclelora.data.streets.textures import Bytes, Floats, coloured

Colour = Sequence[float] | Floats

SIZE = (256, 512)
SUPER = 2
HEIGHT, WIDTH = SIZE[0] * SUPER, SIZE[1] * SUPER
NEAR = 0.6
IGNORE = 255
UP = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: `matrix` (3, 4) takes world metres (x right, y up, z ahead) to canvas pixels times depth."""

    matrix: Floats
    centre: Floats
    focal: float

    @classmethod
    def placed(cls, x: float, height: float, hfov: float, yaw: float, pitch: float, roll: float) -> "Camera":
        """Camera at (x, height, 0) metres; angles in degrees, positive yaw to the right, positive pitch down."""
        focal = WIDTH / 2 / math.tan(math.radians(hfov) / 2)
        (cy, sy), (cp, sp), (cr, sr) = (
            (math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (yaw, pitch, roll)
        )
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        bank = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        inner = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
        rotation = bank @ np.diag([1.0, -1.0, 1.0]) @ nod @ turn
        centre = np.array([x, height, 0.0])
        matrix = inner @ np.column_stack([rotation, -rotation @ centre])
        return cls(matrix, centre, focal)

    def depth(self, points: Floats) -> Floats:
        """Depth in metres of points (n, 3)."""
        ahead: Floats = points @ self.matrix[2, :3] + self.matrix[2, 3]
        return ahead

    def project(self, points: Floats) -> Floats:
        """Canvas pixels (m, 2) of a polygon (n, 3), clipped against the near plane (m = 0 if all of it is behind)."""
        return _flatten(points @ self.matrix[:, :3].T + self.matrix[:, 3])

    def project_all(self, polygons: Sequence[Floats]) -> list[NDArray[np.int32]]:
        """Whole canvas pixels of several polygons at once, each clipped against the near plane where it must be."""
        flat = np.concatenate(polygons) @ self.matrix[:, :3].T + self.matrix[:, 3]
        if flat[:, 2].min() >= NEAR:
            return split_like(pixel_corners(flat[:, :2] / flat[:, 2:]), polygons)
        return [pixel_corners(_flatten(part)) for part in split_like(flat, polygons)]

    def spot(self, point: Colour) -> tuple[Floats, float]:
        """Canvas pixel (2,) of one point ahead of the camera, and the pixels per metre there."""
        flat = self.matrix[:, :3] @ np.asarray(point) + self.matrix[:, 3]
        return flat[:2] / flat[2], self.focal / float(flat[2])

    def homography(self, origin: Colour, along: Colour, up: Colour) -> Floats:
        """(3, 3) map from plane coordinates (a, b) to pixels times depth, for world points origin + a along + b up."""
        spans = np.column_stack([along, up, origin])
        lifted: Floats = self.matrix[:, :3] @ spans
        lifted[:, 2] += self.matrix[:, 3]
        return lifted


def split_like(joined: Floats, parts: Sequence[Floats]) -> list[Floats]:
    """Cut an array that was concatenated from `parts` (or from as long ones) back into them."""
    ends = list(accumulate(map(len, parts)))
    return [joined[end - len(part) : end] for end, part in zip(ends, parts, strict=True)]


def _flatten(flat: Floats) -> Floats:
    if flat[:, 2].min() < NEAR:
        flat = _clip_near(flat)
    return flat[:, :2] / flat[:, 2:]


def _clip_near(flat: Floats) -> Floats:
    """Cut a polygon of homogeneous pixels (n, 3) where its depth falls below NEAR (Sutherland-Hodgman)."""
    kept: list[Floats] = []
    for start, end in zip(flat, np.roll(flat, -1, axis=0), strict=True):
        if start[2] >= NEAR:
            kept.append(start)
        if (start[2] >= NEAR) != (end[2] >= NEAR):
            kept.append(start + (end - start) * ((NEAR - start[2]) / (end[2] - start[2])))
    return np.array(kept).reshape(-1, 3)


@dataclass(frozen=True)
class Light:
    """Sun and sky while painting: `sun` is a unit vector towards it; colours multiply surface colours."""

    sun: tuple[float, float, float]
    sun_rgb: tuple[float, float, float]
    sky_rgb: tuple[float, float, float]

    def shade(self, normal: Colour) -> tuple[float, float, float]:
        """Colour factor of a surface with this unit normal; faces turned to the ground get less of the sky."""
        direct = max(0.0, normal[0] * self.sun[0] + normal[1] * self.sun[1] + normal[2] * self.sun[2])
        cover, (r, g, b), (red, green, blue) = 0.75 + 0.25 * normal[1], self.sky_rgb, self.sun_rgb
        return r * cover + red * direct, g * cover + green * direct, b * cover + blue * direct


def pixel_corners(pixels: Floats) -> NDArray[np.int32]:
    """Whole canvas pixels (n, 2) of a polygon, kept within what OpenCV can rasterise."""
    corners: NDArray[np.int32] = np.rint(pixels.clip(-20000, 20000)).astype(np.int32)
    return corners


def paint_of(colour: Colour, gain: float = 1.0) -> tuple[int, int, int, int]:
    """RGB or RGB-glow colour times a gain on its RGB, as the bytes OpenCV wants (glow 0 when it is not given)."""
    red, green, blue = int(colour[0] * gain), int(colour[1] * gain), int(colour[2] * gain)
    return min(red, 255), min(green, 255), min(blue, 255), int(colour[3]) if len(colour) > 3 else 0


def tinted(colour: Colour, factor: Colour) -> Colour:
    """A colour times an RGB factor; its glow, if any, is kept."""
    return (colour[0] * factor[0], colour[1] * factor[1], colour[2] * factor[2], *colour[3:])


@dataclass
class Canvas:
    """The two buffers being painted, and the label and depth plane of every surface number handed out so far."""

    camera: Camera
    light: Light
    snow: float = 0.0
    colour: Bytes = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH, 4), np.uint8))
    surfaces: NDArray[np.int32] = field(default_factory=lambda: np.zeros((HEIGHT, WIDTH), np.int32))
    labels: list[int] = field(default_factory=lambda: [IGNORE])
    planes: list[tuple[float, float, float]] = field(default_factory=lambda: [(0.0, 0.0, 0.0)])

    def surface(self, label: int, depth: float) -> int:
        """A new surface number at one depth (metres); infinite depth is allowed."""
        return self.plane_surface(label, (0.0, 0.0, 1 / depth))

    def plane_surface(self, label: int, plane: tuple[float, float, float]) -> int:
        """A new surface number whose inverse depth is plane . (u, v, 1) at canvas pixel (u, v)."""
        self.labels.append(label)
        self.planes.append(plane)
        return len(self.labels) - 1

    def fill(self, pixels: Floats, surface: int, colour: Colour) -> None:
        """Fill one polygon (n, 2) of float or int32 canvas pixels in both buffers, without anti-aliasing."""
        if len(pixels) < 3:
            return
        corners = [pixels if pixels.dtype == np.int32 else pixel_corners(pixels)]
        cv2.fillPoly(self.colour, corners, paint_of(colour))
        cv2.fillPoly(self.surfaces, corners, surface)

    def stroke(self, start: Floats, end: Floats, width: float, surface: int, colour: Colour) -> None:
        """Draw a round-ended bar between two canvas pixels, `width` pixels thick (at least one)."""
        ends = [(round(x), round(y)) for x, y in (start.tolist(), end.tolist())]
        thick = max(1, round(width))
        cv2.line(self.colour, ends[0], ends[1], paint_of(colour), thick)
        cv2.line(self.surfaces, ends[0], ends[1], surface, thick)

    def disc(self, centre: Floats, radii: tuple[float, float], surface: int, colour: Colour) -> None:
        """Fill an axis-aligned ellipse given by canvas pixels."""
        middle = (round(float(centre[0])), round(float(centre[1])))
        axes = (max(1, round(radii[0])), max(1, round(radii[1])))
        cv2.ellipse(self.colour, middle, axes, 0, 0, 360, paint_of(colour), -1)
        cv2.ellipse(self.surfaces, middle, axes, 0, 0, 360, surface, -1)

    def textured(
        self,
        origin: Colour,
        along: Colour,
        up: Colour,
        size: tuple[float, float],
        texture: Bytes,
        label: int,
        facing: Colour,
    ) -> None:
        """Paint a rectangle of the world with an RGB-glow texture (its first row on top), lit by where it is facing.

        The rectangle is origin + a along + b up for 0 <= a <= size[0], 0 <= b <= size[1], in metres.
        """
        # A tuple is a per-channel factor to OpenCV, which its stubs do not know.
        lit = cv2.multiply(texture, (*self.light.shade(facing), 1.0))  # type: ignore[call-overload]
        plane = self.camera.homography(origin, along, up)
        surface = self.plane_surface(label, tuple(np.linalg.inv(plane)[2]))
        high, wide = texture.shape[:2]
        texel = np.array([[size[0] / wide, 0, 0], [0, -size[1] / high, size[1]], [0, 0, 1]])
        self._paste(self.rectangle(origin, along, up, size), plane @ texel, lit, surface)

    def rectangle(self, origin: Colour, along: Colour, up: Colour, size: tuple[float, float]) -> Floats:
        """Canvas pixels (n, 2) of the outline of such a rectangle."""
        corners = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]])
        return self.camera.project(
            np.asarray(origin) + corners[:, :1] * np.asarray(along) + corners[:, 1:] * np.asarray(up)
        )

    def seen(self, pixels: Floats) -> bool:
        """Whether any of a polygon's bounding box lies on the canvas."""
        return self._box(pixels) is not None

    def _paste(self, polygon: Floats, warp: Floats, texture: Bytes, surface: int) -> None:
        box = self._box(polygon)
        if box is None:
            return
        left, top = box[:2]
        size = (box[2] - left, box[3] - top)
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1.0]])
        patch = cv2.warpPerspective(
            texture, shift @ warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.fillPoly(mask, [pixel_corners(polygon) - (left, top)], 1)
        self.stamp(patch, mask, left, top, surface)

    def _box(self, pixels: Floats) -> tuple[int, int, int, int] | None:
        if len(pixels) < 3:
            return None
        (x0, y0), (x1, y1) = pixels.min(0).tolist(), pixels.max(0).tolist()
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(WIDTH, math.ceil(x1) + 1), min(HEIGHT, math.ceil(y1) + 1)
        return (left, top, right, bottom) if right > left and bottom > top else None

    def stamp(self, patch: Bytes, mask: Bytes, left: int, top: int, surface: int) -> None:
        """Copy an RGB-glow patch where its mask is set, its corner at (left, top), cut to the canvas."""
        x0, y0 = max(0, -left), max(0, -top)
        x1, y1 = min(patch.shape[1], WIDTH - left), min(patch.shape[0], HEIGHT - top)
        if x1 <= x0 or y1 <= y0:
            return
        chosen = np.ascontiguousarray(mask[y0:y1, x0:x1])
        window = np.s_[top + y0 : top + y1, left + x0 : left + x1]
        cv2.copyTo(patch[y0:y1, x0:x1], chosen, self.colour[window])
        self.surfaces[window][chosen > 0] = surface

    def sprite(
        self, grey: Bytes, mask: Bytes, foot: Floats, extent: tuple[float, float], surface: int, ramp: Bytes
    ) -> None:
        """Stamp a grey sprite, bottom centre at `foot`, `extent` pixels wide and high, coloured by a (256, 4) ramp."""
        wide, high = (max(2, round(e)) for e in extent)
        left, top = round(float(foot[0]) - wide / 2), round(float(foot[1])) - high
        if left >= WIDTH or top >= HEIGHT or left + wide <= 0 or top + high <= 0:
            return
        shape = cv2.resize(mask, (wide, high), interpolation=cv2.INTER_NEAREST)
        # Colour whichever of the picture and its enlargement has fewer pixels.
        if wide * high < grey.size:
            patch = coloured(cv2.resize(grey, (wide, high), interpolation=cv2.INTER_LINEAR), ramp)
        else:
            patch = cv2.resize(coloured(grey, ramp), (wide, high), interpolation=cv2.INTER_LINEAR)
        self.stamp(patch, shape, left, top, surface)

    def label_map(self) -> Bytes:
        """uint8 (256, 512) train ids."""
        return np.array(self.labels, np.uint8)[self.surfaces[::SUPER, ::SUPER]]

    def nearness(self) -> Floats:
        """float32 (256, 512) inverse depth in 1/metres; 0 is infinitely far."""
        chosen = self.surfaces[::SUPER, ::SUPER]
        planes = np.array(self.planes, np.float32)
        rows, columns = (np.arange(0, n, SUPER, dtype=np.float32) for n in (HEIGHT, WIDTH))
        found = planes[:, 0][chosen] * columns + planes[:, 1][chosen] * rows[:, None] + planes[:, 2][chosen]
        return np.clip(found, 0, 1 / NEAR)
