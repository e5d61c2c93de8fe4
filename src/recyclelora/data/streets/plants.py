"""Trees and shrubs of the `streets` scenes: foliage pictures made once per process, coloured and stamped."""

import math
from functools import cache

import cv2
import numpy as np

from recyclelora.data.streets.brush import Brush
from recyclelora.data.streets.canvas import Canvas, Colour
from recyclelora.data.streets.textures import Bytes, cutout, fractal, to_bytes

PLANT = 8


@cache
def crowns() -> tuple[tuple[Bytes, Bytes], ...]:
    """Grey (192, 192) foliage pictures with their masks: four broad crowns, two conifers, two palms, one bare tree."""
    rng = np.random.default_rng(20)
    return tuple(_clumps(rng, kind) for kind in ("broad",) * 4 + ("cone",) * 2 + ("palm",) * 2 + ("bare",))


def _clumps(rng: np.random.Generator, kind: str) -> tuple[Bytes, Bytes]:
    grey, mask = np.zeros((192, 192), np.uint8), np.zeros((192, 192), np.uint8)
    if kind in ("palm", "bare"):
        (_fronds if kind == "palm" else _twigs)(rng, grey, mask)
    else:
        _leaves(rng, grey, mask, kind == "cone")
    grain = cutout(fractal("leaf", 512, 7, 0.8), rng, 192, 192).astype(np.float32) / 128
    return to_bytes(grey * grain), mask


def _leaves(rng: np.random.Generator, grey: Bytes, mask: Bytes, cone: bool) -> None:
    """Tufts of leaves from the dark inside to the sunny top, in clumps, with a ragged rim."""
    lumps = np.roll(fractal("clump", 512, 5, 0.75)[::2, ::2], rng.integers(0, 256, 2), (0, 1)).repeat(2, 0).repeat(2, 1)
    for step in range(2600):
        depth = step / 2600
        if cone:
            y = rng.uniform(12, 184)
            x = 96 + rng.uniform(-1, 1) * (8 + 76 * (y / 192))
        else:
            angle, reach = rng.uniform(0, math.tau), math.sqrt(rng.random()) * (1.02 - 0.25 * depth)
            x, y = 96 + 80 * reach * math.cos(angle), 96 + 80 * reach * math.sin(angle) - 8 * depth
        clump = lumps[int(y) % 512, int(x) % 512] - 128.0
        tone = (
            (26 if cone else 50)
            + 55 * depth
            + 45 * (1 - y / 192)
            + 20 * (x / 192 - 0.5)
            + 0.6 * clump
            + rng.normal(0, 14)
        )
        if clump < -18 and _reach_out(x, y) > 0.62:
            continue
        spot, radius = (round(x), round(y)), int(rng.integers(1, 10 - int(7 * depth)))
        cv2.circle(grey, spot, radius, float(np.clip(tone, 20, 235)), -1)
        cv2.circle(mask, spot, radius, 255, -1)


def _reach_out(x: float, y: float) -> float:
    """How far from the middle of a (192, 192) crown a spot lies, 1 at its rim."""
    return math.hypot(x - 96, y - 96) / 88


def _fronds(rng: np.random.Generator, grey: Bytes, mask: Bytes) -> None:
    for angle in np.linspace(0, math.tau, 19)[:-1] + rng.normal(0, 0.1, 18):
        reach, droop = rng.uniform(60, 90), rng.uniform(10, 55)
        t = np.linspace(0, 1, 22)
        xs, ys = 96 + reach * t * math.cos(angle), 84 - reach * 0.62 * t * math.sin(angle) + droop * t * t
        for x, y, s in zip(xs, ys, t, strict=True):
            for sign in (-1, 1):
                tip = (round(x + sign * 9 * (1.1 - s)), round(y + 14 * (1.15 - s)))
                tone = float(np.clip(rng.normal(120, 24) + 40 * math.sin(angle), 40, 220))
                cv2.line(grey, (round(x), round(y)), tip, tone, 3)
                cv2.line(mask, (round(x), round(y)), tip, 255, 3)


def _twigs(rng: np.random.Generator, grey: Bytes, mask: Bytes) -> None:
    stack = [(96.0, 191.0, -math.pi / 2, 46.0, 9.0)]
    while stack:
        x, y, angle, reach, thick = stack.pop()
        end = (x + reach * math.cos(angle), y + reach * math.sin(angle))
        for buffer, tone in ((grey, float(rng.uniform(70, 120))), (mask, 255.0)):
            cv2.line(buffer, (round(x), round(y)), (round(end[0]), round(end[1])), tone, max(2, round(thick)))
        if reach > 9:
            for lean in (rng.uniform(-0.75, -0.25), rng.uniform(-0.2, 0.2), rng.uniform(0.25, 0.75)):
                stack.append((*end, angle + lean, reach * rng.uniform(0.6, 0.82), thick * 0.62))


def leaf_ramp(canvas: Canvas, colour: Colour) -> Bytes:
    """(256, 4) colours of foliage from shadow to sun for a mean leaf colour; snow whitens the bright leaves."""
    level = np.minimum(np.arange(256, dtype=np.float32)[:, None] / 128, 1.38)
    sunny = np.array(canvas.light.shade((0.3, 0.8, -0.5)))
    ramp = np.asarray(colour, np.float32) * (0.45 + 0.75 * level) * level**0.4 * sunny
    ramp += np.clip(level - 1.05, 0, 1) * canvas.snow * 260
    return to_bytes(np.column_stack([ramp, np.zeros(256)]))


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, species: tuple[int, ...], leaf: Colour) -> None:
    """A street tree; `species` index `crowns()`."""
    brush = Brush.at(canvas, x, z)
    surface, kind = brush.surface(PLANT), species[rng.integers(len(species))]
    high = rng.uniform(4.5, 9.5)
    bark = np.array((92, 76, 62)) * rng.uniform(0.7, 1.15)
    grey, mask = crowns()[kind]
    grey, mask = (grey[:, ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (grey, mask)
    clear = (0.1 if kind in (4, 5) else 0.72 if kind in (6, 7) else 0.32) * high
    _trunk(brush, surface, rng.uniform(0.12, 0.22), rng.uniform(-0.2, 0.2), clear + 0.9, bark)
    colour = bark * 1.1 if kind == 8 else np.asarray(leaf) * rng.uniform(0.8, 1.2) + rng.normal(0, 7, 3)
    wide = (high - clear) * (0.55 if kind in (4, 5) else rng.uniform(0.9, 1.25))
    extent = (wide * brush.scale, (high - clear) * brush.scale)
    canvas.sprite(grey, mask, brush.px(0, clear), extent, surface, leaf_ramp(canvas, colour))


def _trunk(brush: Brush, surface: int, radius: float, lean: float, high: float, bark: Colour) -> None:
    """A trunk that widens to its foot, darker on one side."""
    for left, right, tilt in ((-1.0, 1.0, -0.8), (-0.4, 1.0, 0.0), (0.3, 0.8, 0.8)):
        foot, top = radius * 1.5, radius * 0.7
        outline = [(left * foot, 0.0), (right * foot, 0.0), (right * radius, 0.5)]
        outline += [(lean + right * top, high), (lean + left * top, high), (left * radius, 0.5)]
        brush.shape(surface, outline, brush.lit(bark, tilt))


def bush(canvas: Canvas, rng: np.random.Generator, x: float, z: float, leaf: Colour, size: float) -> None:
    """A round shrub standing on the ground, `size` metres high."""
    brush = Brush.at(canvas, x, z)
    grey, mask = crowns()[int(rng.integers(4))]
    extent = (size * rng.uniform(1.1, 2.0) * brush.scale, size * 1.1 * brush.scale)
    colour = np.asarray(leaf) * rng.uniform(0.75, 1.15)
    canvas.sprite(grey, mask, brush.px(0, -0.05 * size), extent, brush.surface(PLANT), leaf_ramp(canvas, colour))
