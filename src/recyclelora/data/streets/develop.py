"""Turns a painted street into a photograph: ground texture and shadows, weather, lamps, fog, lens and sensor.

Nothing in this file can change a label. Light is linear until `_tone` brings it back to display bytes.
"""

from functools import cache

import cv2
import numpy as np

from recyclelora.data.streets.canvas import SIZE, SUPER, Camera
from recyclelora.data.streets.ground import ground_tile
from recyclelora.data.streets.looks import Look
from recyclelora.data.streets.plan import SKY, Painting
from recyclelora.data.streets.textures import Bytes, Floats, fractal

_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2.2
_DISPLAY = np.rint(255 * (np.arange(4097) / 4096) ** (1 / 2.2)).astype(np.uint8)


def develop(painting: Painting, look: Look, rng: np.random.Generator) -> Bytes:
    """uint8 RGB (256, 512, 3) photograph of a painting in this look; `rng` drives clouds, weather and noise."""
    albedo = cv2.LUT(painting.colour[..., :3], _LINEAR)
    shining = albedo * (painting.colour[..., 3:] * np.float32(look.lamps / 255))
    albedo *= _ground_gain(painting, look, rng)[..., None]
    if look.snow:
        albedo = _lay_snow(albedo, painting, look, rng)
    light = albedo * _irradiance(painting, look) + shining
    _paint_sky(light, painting, look, rng)
    if look.wet:
        light = _wet(light, painting, look, rng)
    _add_fog(light, painting, look, rng)
    light = _lens(light, look)
    _falling(light, look, rng)
    return _tone(light, look, rng)


def _ground_gain(painting: Painting, look: Look, rng: np.random.Generator) -> Floats:
    """float32 (256, 512): texture of tarmac, paving and grass, fading into the distance, times the cast shadows."""
    gain = np.ones(SIZE, np.float32)
    fade = np.minimum(1.0, painting.nearness * 14)
    broad = (ground_tile(painting.camera, fractal("patch", 512, 6), 26.0).astype(np.float32) - 128) * 0.28
    for code, tile, metres, strength in (
        (1, fractal("tarmac", 512, 8, 0.9), 2.4, 0.48),
        (2, paving(int(rng.integers(3))), 4.0, 0.9),
        (3, fractal("grass", 512, 8, 0.8), 2.6, 0.7),
    ):
        here = painting.ground == code
        if here.any():
            detail = ground_tile(painting.camera, tile, metres)[here].astype(np.float32) - 128
            gain[here] = 1 + (strength * detail * fade[here] + broad[here]) / 128
    shaded = look.shadow + (1 - look.shadow) * painting.sunlit
    return np.clip(gain, 0.2, 2.0) * np.where(painting.ground > 0, shaded, 1.0)


@cache
def paving(style: int) -> Bytes:
    """uint8 (512, 512) tile of slabs (0), cobbles (1) or herringbone-like bricks (2), four metres wide."""
    cell_y, cell_x = ((64, 64), (16, 16), (16, 32))[style]
    y, x = np.mgrid[0:512, 0:512]
    row = y // cell_y
    shifted = x + (row % 2) * (cell_x // 2)
    joint = (y % cell_y < 3) | (shifted % cell_x < 3)
    tones = np.random.default_rng(style).normal(128, 11, (64, 64))
    tile = tones[row % 64, (shifted // cell_x) % (512 // cell_x)] + 0.35 * (fractal("plaster").astype(np.float32) - 128)
    return np.clip(np.where(joint, 82, tile), 0, 255).astype(np.uint8)


def _lay_snow(albedo: Floats, painting: Painting, look: Look, rng: np.random.Generator) -> Floats:
    """Snow on terrain and pavements, thinner on the road where wheels have cleared it."""
    drift = ground_tile(painting.camera, fractal("drift", 512, 6, 0.6), rng.uniform(7, 11)).astype(np.float32) / 128
    cover = np.array((0, 0.42, 0.86, 1.05), np.float32)[painting.ground] * drift**1.3 * look.snow * 1.15
    cover = np.clip((cover - 0.25) * 1.8, 0, 0.95)[..., None]
    white = np.array((0.72, 0.76, 0.84), np.float32) * (0.8 + 0.2 * drift[..., None])
    return albedo * (1 - cover) + white * cover


def _rays(camera: Camera) -> tuple[Floats, Floats]:
    rows, columns = (np.arange(0, n * SUPER, SUPER, dtype=np.float32) for n in SIZE)
    x = (columns - SIZE[1] * SUPER / 2) / camera.focal
    y = (rows - SIZE[0] * SUPER / 2) / camera.focal
    return x[None, :], y[:, None]


def _irradiance(painting: Painting, look: Look) -> Floats:
    """Light on every surface, (h, w, 3) or (1,): ambient, plus the pools of street lamps and the own headlights.

    The pools are smooth, so they are worked out at half size.
    """
    if look.ambient > 0.2:
        return np.full(1, look.ambient, np.float32)
    across, down = (ray[:: min(2, ray.shape[0]), :: min(2, ray.shape[1])] for ray in _rays(painting.camera))
    depth = 1 / np.maximum(painting.nearness[::2, ::2], 1e-3)
    x, y = across * depth, down * depth
    pools = np.zeros_like(depth)
    for lamp in painting.lamps[painting.lamps[:, 2] < 75]:
        lx, ly, lz = _seen_from(painting.camera, lamp)
        square = (x - lx) ** 2 + (y - ly) ** 2 + (depth - lz) ** 2
        pools += 46 * np.clip((y - ly) / 5, 0, 1) / (square + 9)
    beam = np.exp(-((across / 0.42) ** 2) - ((down - 0.1) / 0.16) ** 2) * 40 / (depth**2 + 70)
    total = pools[..., None] * np.array((0.62, 0.44, 0.23), np.float32) + beam[..., None] * np.array(
        (1.0, 0.95, 0.82), np.float32
    )
    return cv2.resize(total, SIZE[::-1]) + look.ambient * np.array((0.8, 0.9, 1.3), np.float32)


def _seen_from(camera: Camera, point: Floats) -> tuple[float, float, float]:
    """A world point in the camera's own metres: right, down, ahead."""
    u, v, depth = (camera.matrix[:, :3] @ point + camera.matrix[:, 3]).tolist()
    return (u - SIZE[1] * SUPER / 2 * depth) / camera.focal, (v - SIZE[0] * SUPER / 2 * depth) / camera.focal, depth


def _paint_sky(light: Floats, painting: Painting, look: Look, rng: np.random.Generator) -> None:
    """Fill the sky of `light` in place: a gradient to the horizon with clouds that flatten towards it."""
    top, low = (_LINEAR[np.array(c)] for c in (look.sky_top, look.sky_low))
    across, down = (
        ray[tuple(slice(None, None, 2 if n > 1 else 1) for n in ray.shape)] for ray in _rays(painting.camera)
    )
    rise = np.clip(-down * 2.2 + 0.1 * across, 0.02, 1)
    share = np.sqrt(rise)[..., None]
    sky = low * (1 - share) + top * share
    rows = 81 / (rise[:, :1] + 0.12)
    u = across * (0.5 + rows / 180) * 160 + np.float32(rng.uniform(0, 512))
    v = np.broadcast_to(rows + np.float32(rng.uniform(0, 512)), u.shape)
    cloud = cv2.remap(
        fractal("cloud", 512, 7, 0.55), u, np.ascontiguousarray(v), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    cover = (
        np.clip((cloud.astype(np.float32) - 128) / 70 + np.float32(rng.uniform(-0.3, 0.35)), 0, 1)[..., None]
        * look.clouds
    )
    sky += (np.clip(low * 1.1 + 0.05 * cover, 0, 1) * (1.08 - 0.3 * cover) - sky) * cover
    cv2.copyTo(cv2.resize(sky, SIZE[::-1]), (painting.labels == SKY).astype(np.uint8), light)


def _wet(light: Floats, painting: Painting, look: Look, rng: np.random.Generator) -> Floats:
    """A dark wet ground that mirrors what stands beyond it, more in puddles and at flat angles."""
    down = _rays(painting.camera)[1]
    plane = painting.camera.matrix[:2, :3] @ (0, 0, 1.0) / painting.camera.matrix[2, 2] / SUPER
    rows = 2 * plane[1] - np.arange(SIZE[0], dtype=np.float32)[:, None] * np.ones((1, SIZE[1]), np.float32)
    columns = np.ones((SIZE[0], 1), np.float32) * np.arange(SIZE[1], dtype=np.float32)
    ripple = ground_tile(painting.camera, fractal("ripple", 512, 8, 0.8), 1.6).astype(np.float32) - 128
    mirror = cv2.remap(
        light,
        columns + 0.02 * ripple,
        (rows + 0.05 * ripple).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    mirror = cv2.blur(mirror, (3, 13))
    puddle = ground_tile(painting.camera, fractal("patch", 512, 6), rng.uniform(9, 15)).astype(np.float32) / 128
    flat = 0.16 + 0.6 * np.exp(-np.abs(down) * 6)
    share = np.clip(flat * puddle**2 * look.wet, 0, 0.85) * np.array((0, 1.0, 0.6, 0.15), np.float32)[painting.ground]
    soaked: Floats = np.where(painting.ground[..., None] > 0, light * (1 - 0.5 * look.wet), light)
    soaked += (mirror - soaked) * share[..., None]
    return soaked


def _add_fog(light: Floats, painting: Painting, look: Look, rng: np.random.Generator) -> None:
    """Koschmieder: light fades exponentially with depth towards the colour of the air, in place."""
    density = rng.uniform(*look.fog)
    depth = (1 / np.maximum(painting.nearness, 1 / 400)).astype(np.float32)
    depth[painting.labels == SKY] = 90
    through = cv2.exp(np.float32(-density) * depth)[..., None]
    air = _LINEAR[np.array(look.fog_rgb)]
    light -= air
    light *= through
    light += air


def _lens(light: Floats, look: Look) -> Floats:
    """Halos around what is brighter than white, the blur of the lens, and its vignette."""
    if look.lamps > 0.5:
        small = cv2.resize(np.clip(light - 0.55, 0, 3), (SIZE[1] // 4, SIZE[0] // 4), interpolation=cv2.INTER_AREA)
        halo = cv2.GaussianBlur(small, (0, 0), 1.2) * 0.5 + cv2.GaussianBlur(small, (0, 0), 5.0) * 0.5
        light = light + cv2.resize(halo, SIZE[::-1], interpolation=cv2.INTER_LINEAR) * look.lamps
    if look.blur:
        light = cv2.GaussianBlur(light, (0, 0), look.blur)
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in SIZE)
    return light * (1 - look.vignette * (0.5 * rows[:, None] + 0.5 * columns[None]))[..., None]


def _falling(light: Floats, look: Look, rng: np.random.Generator) -> None:
    """Rain streaks and snow flakes, drawn over the finished light in place."""
    veil = np.zeros(SIZE, np.float32)
    for x, y, reach in zip(*(rng.uniform(0, n, look.streaks) for n in (SIZE[1], SIZE[0], 1)), strict=True):
        start, long = (int(x), int(y)), 5 + 16 * reach
        cv2.line(veil, start, (int(x + 0.12 * long), int(y + long)), 0.1 + 0.22 * float(reach), 1)
    for x, y, size in zip(*(rng.uniform(0, n, look.flakes) for n in (SIZE[1], SIZE[0], 1)), strict=True):
        cv2.circle(veil, (int(x), int(y)), int(2.4 * size**3), 0.4 + 0.5 * float(size), -1)
    if veil.any():
        soft = cv2.blur(veil, (2, 2))[..., None]
        light += ((0.75 if look.flakes else 0.55) - light) * soft


def _tone(light: Floats, look: Look, rng: np.random.Generator) -> Bytes:
    """Exposure, colour grading and sensor noise, down to display bytes."""
    grade = look.saturation * np.eye(3) + (1 - look.saturation) * np.array((0.2126, 0.7152, 0.0722))
    light = np.maximum(cv2.transform(light, (grade * look.exposure).astype(np.float32)), 0)
    light /= 1 + np.maximum(light - 0.7, 0)
    if look.contrast != 1:
        light = cv2.pow(light, look.contrast)
    grain = np.roll(_grain(), rng.integers(0, SIZE[0], 2), (0, 1))
    light += grain * cv2.sqrt(np.maximum(light, 0.02)) * np.float32(0.8 * look.noise)
    return _DISPLAY[(np.clip(light, 0, 1) * 4096).astype(np.uint16)]


@cache
def _grain() -> Floats:
    """float32 (256, 512, 3) unit noise, made once per process."""
    rng = np.random.default_rng(77)
    return rng.normal(0, 1, (*SIZE, 3)).astype(np.float32)
