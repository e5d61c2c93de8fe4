"""House fronts of the `streets` scenes, drawn flat in metres and then hung into perspective by the canvas."""

from dataclasses import dataclass

import cv2
import numpy as np

from recyclelora.data.streets.canvas import Colour, paint_of
from recyclelora.data.streets.cities import City
from recyclelora.data.streets.textures import Bytes, coloured, cutout, fractal, to_bytes

SHOPS = ((150, 34, 38), (30, 70, 120), (30, 96, 70), (206, 150, 40), (52, 52, 58), (120, 60, 110), (210, 206, 196))
WINDOWS = ("plain", "curtain", "blind", "dark", "lit")


@dataclass(frozen=True)
class Facade:
    """The style all fronts of one building share; lengths in metres."""

    wall: Colour
    trim: Colour
    brick: bool
    storey: float
    window: tuple[float, float]
    bay: float
    arched: bool
    balconies: bool
    shops: bool
    lit: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, city: City, lit: float) -> "Facade":
        """A random style of this city; `lit` is the share of windows with light behind them."""
        wall = np.clip(np.array(city.walls[rng.integers(len(city.walls))]) + rng.normal(0, 9, 3), 30, 248)
        storey, wide = rng.uniform(*city.storey), rng.uniform(*city.window)
        trim = (226, 222, 212) if rng.random() < 0.6 else tuple(wall * 0.72)
        return cls(
            tuple(wall),
            trim,
            rng.random() < city.brick,
            storey,
            (wide, storey * rng.uniform(0.45, 0.62)),
            wide * rng.uniform(1.6, 2.3),
            rng.random() < city.arches,
            rng.random() < city.balconies,
            rng.random() < 0.55,
            lit,
        )


def draw_front(rng: np.random.Generator, style: Facade, size: tuple[float, float], ppm: float) -> Bytes:
    """RGB-glow picture of one front, `size` metres wide and high at `ppm` pixels per metre."""
    wide, high = max(8, round(size[0] * ppm)), max(8, round(size[1] * ppm))
    image = _masonry(rng, style, (high, wide), ppm)
    ground = style.storey * 1.15 if style.shops else style.storey
    _windows(image, rng, style, size, ppm, ground)
    _street_level(image, rng, style, size, ppm, ground)
    cornice = max(1, round(0.35 * ppm))
    image[:cornice] = paint_of(style.trim, 0.92)
    image[cornice : cornice + max(1, round(0.15 * ppm))] = paint_of(style.wall, 0.5)
    return image


def _masonry(rng: np.random.Generator, style: Facade, shape: tuple[int, int], ppm: float) -> Bytes:
    """A blank wall of brick courses or plaster, weathered downwards and stained in large patches."""
    (high, wide), stain = shape, cutout(fractal("plaster", 512, 6, 0.62), rng, *shape)
    gain = np.linspace(0.86, 0.71, high, dtype=np.float32)[:, None]
    if style.brick and ppm >= 10:
        rows, columns = np.arange(high) / ppm, np.arange(wide) / ppm
        course = (rows / 0.17).astype(int)
        joint = ((columns + 0.2 * (course[:, None] % 2)) % 0.4 < 0.07) | (rows % 0.17 < 0.05)[:, None]
        gain = gain * np.where(joint, np.float32(0.84), np.float32(1.04))
    level = (gain * (92 + np.float32(0.28) * stain)).astype(np.uint8)
    ramp = np.arange(256)[:, None] / 105.0 * paint_of(style.wall)
    return coloured(level, to_bytes(ramp))


def _windows(
    image: Bytes, rng: np.random.Generator, style: Facade, size: tuple[float, float], ppm: float, ground: float
) -> None:
    count = max(1, int((size[0] - 0.6) / style.bay))
    margin = (size[0] - count * style.bay) / 2
    odds = np.array([0.5, 0.23, 0.12, 0.15, 0.0]) * (1 - style.lit) + np.eye(5)[4] * style.lit
    floors = max(0, int((size[1] + 0.3 - ground) / style.storey))
    kinds = rng.choice(5, (floors, count), p=odds)
    cells = {kind: _window(style, ppm, WINDOWS[kind]) for kind in np.unique(kinds).tolist()}
    for floor, row in enumerate(kinds.tolist()):
        level = ground + floor * style.storey
        _band(image, level - 0.12, 0.14, ppm, style.trim if style.shops else tuple(c * 0.86 for c in style.wall[:3]))
        for bay, kind in enumerate(row):
            left = margin + bay * style.bay + (style.bay - style.window[0]) / 2 - 0.18
            _place(image, cells[kind], left, level + 0.25 * style.storey - 0.2, ppm)
        if style.balconies and rng.random() < 0.75:
            _balcony(image, level, margin, count * style.bay, ppm)


def _band(image: Bytes, level: float, thick: float, ppm: float, colour: Colour) -> None:
    bottom = image.shape[0] - round(level * ppm)
    image[max(0, bottom - max(1, round(thick * ppm))) : max(0, bottom)] = paint_of(colour)


def _place(image: Bytes, cell: Bytes, left: float, level: float, ppm: float) -> None:
    x, bottom = max(0, round(left * ppm)), image.shape[0] - round(level * ppm)
    top = max(0, bottom - cell.shape[0])
    patch = image[top:bottom, x : x + cell.shape[1]]
    patch[:] = cell[cell.shape[0] - (bottom - top) :, : patch.shape[1]]


def _window(style: Facade, ppm: float, kind: str) -> Bytes:
    """One window with its frame, sill, reveal shadow and whatever is behind the glass."""
    wide, high = (max(3, round((s + 0.36) * ppm)) for s in style.window)
    rim = max(1, round(0.16 * ppm))
    cell = np.full((high, wide, 4), paint_of(style.trim), np.uint8)
    glass = cell[rim : high - rim, rim : wide - rim]
    sky = np.linspace(1.0, 0.35, len(glass))[:, None, None]
    tint = {"dark": (44, 50, 56), "lit": (255, 206, 128)}.get(kind, (126, 146, 162))
    glass[..., :3] = np.clip(np.array(tint) * (sky if kind != "lit" else 0.7 + 0.3 * sky), 0, 255)
    glass[..., 3] = 175 if kind == "lit" else 0
    if kind == "curtain":
        glass[:, : glass.shape[1] // 3, :3] = glass[:, -(glass.shape[1] // 3) - 1 :, :3] = (206, 202, 194)
    if kind == "blind":
        glass[: max(1, len(glass) // 2), :, :3] = (178, 174, 164)
    bar = max(1, round(0.07 * ppm))
    glass[:, glass.shape[1] // 2 : glass.shape[1] // 2 + bar] = paint_of(style.trim, 0.9)
    glass[: len(glass) // 3 + bar][-bar:] = paint_of(style.trim, 0.9)
    glass[:bar, :, :3] //= 2
    cell[-rim:] = paint_of(style.trim, 0.78)
    if style.arched:
        _arch(cell, style, rim)
    return cell


def _arch(cell: Bytes, style: Facade, rim: int) -> None:
    high, wide = cell.shape[:2]
    mask = np.zeros((high, wide), np.uint8)
    cv2.ellipse(mask, (wide // 2, wide // 2), (wide // 2, wide // 2), 0, 180, 360, 1, -1)
    mask[wide // 2 :] = 1
    cell[mask == 0] = paint_of(style.wall, 0.92)
    cv2.ellipse(
        cell, (wide // 2, wide // 2), (max(1, wide // 2 - rim // 2),) * 2, 0, 180, 360, paint_of(style.trim), rim
    )


def _balcony(image: Bytes, level: float, left: float, wide: float, ppm: float) -> None:
    x0, x1 = round(left * ppm), round((left + wide) * ppm)
    bottom, top = image.shape[0] - round(level * ppm), image.shape[0] - round((level + 1.0) * ppm)
    if top < 0 or ppm < 10:
        return
    image[top:bottom, x0:x1, :3] = (image[top:bottom, x0:x1, :3] * 0.8).astype(np.uint8)
    image[top:bottom, x0 : x1 : max(2, round(0.16 * ppm))] = (44, 44, 48, 0)
    image[top : top + max(1, round(0.07 * ppm)), x0:x1] = (38, 38, 42, 0)
    image[bottom : bottom + max(1, round(0.16 * ppm)), x0:x1] = (150, 146, 140, 0)
    image[bottom + round(0.16 * ppm) : bottom + round(0.5 * ppm), x0:x1, :3] //= 2


def _street_level(
    image: Bytes, rng: np.random.Generator, style: Facade, size: tuple[float, float], ppm: float, ground: float
) -> None:
    high = image.shape[0]
    plinth = max(1, round(0.5 * ppm))
    image[-plinth:, :, :3] = (image[-plinth:, :, :3] * 0.62).astype(np.uint8)
    x = rng.uniform(0.3, 1.0)
    while x + 1.6 < size[0]:
        wide = rng.uniform(2.4, 4.2) if style.shops else style.window[0] + 0.4
        if x + wide > size[0] - 0.2:
            break
        left, right = round(x * ppm), round((x + wide) * ppm)
        if rng.random() < 0.25:
            _door(image, rng, left, round((x + 1.15) * ppm), ppm)
            x += 1.15 + rng.uniform(0.3, 0.8)
            continue
        if style.shops:
            _shop(image, rng, (left, right), high - round((ground - 0.2) * ppm), ppm, style.lit)
        else:
            _place(image, _window(style, ppm, "lit" if rng.random() < style.lit else "curtain"), x, 0.9, ppm)
        x += wide + rng.uniform(0.25, 0.6) * (1 if style.shops else 4)


def _door(image: Bytes, rng: np.random.Generator, left: int, right: int, ppm: float) -> None:
    top = image.shape[0] - round(2.4 * ppm)
    image[top:, left:right] = paint_of((210, 204, 192))
    rim = max(1, round(0.12 * ppm))
    colour = SHOPS[rng.integers(len(SHOPS))]
    image[top + rim :, left + rim : right - rim] = paint_of(colour, 0.6)
    image[top + rim : top + round(0.6 * ppm), left + rim : right - rim] = paint_of((70, 84, 94))


def _shop(image: Bytes, rng: np.random.Generator, span: tuple[int, int], top: int, ppm: float, lit: float) -> None:
    """A shop window with displays, and its sign board or awning above."""
    (left, right), high = span, image.shape[0]
    colour, glow = SHOPS[rng.integers(len(SHOPS))], 150 if rng.random() < 2 * lit else 0
    board = max(2, round(0.65 * ppm))
    image[top:, left:right] = paint_of(colour, 0.55)
    glass = image[top + board : high - round(0.4 * ppm), left + 2 : right - 2]
    shade = np.linspace(0.6, 1.1, len(glass))[:, None, None]
    glass[..., :3] = np.clip(np.array((236, 206, 150) if glow else (70, 80, 88)) * shade, 0, 255)
    glass[..., 3] = glow
    for _ in range(6):
        x, wide, tall = rng.uniform(0, 0.85), rng.uniform(0.06, 0.2), rng.uniform(0.2, 0.6)
        span_x = slice(int(x * glass.shape[1]), int((x + wide) * glass.shape[1]))
        glass[int((1 - tall) * len(glass)) :, span_x, :3] = rng.integers(40, 210, 3)
    image[top : top + board, left:right] = (*paint_of(colour)[:3], glow // 2)
    text = image[top + board // 4 : top + 3 * board // 4, left + board : right - board]
    letters = rng.random(max(1, text.shape[1] // max(1, round(0.22 * ppm)) + 1)).repeat(max(1, round(0.22 * ppm)))
    text[:, letters[: text.shape[1]] < 0.62] = (236, 232, 220, glow)
