"""What each look of `streets` is: a city, and how it is seen: a light, weather and camera."""

from dataclasses import dataclass

from recyclelora.data.streets.cities import ABROAD, EUROPE, GAME, WINTER, City, Rgb, Span

Tint = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """One domain. Angles in degrees, colours multiply linear light, `fog` in 1/metres, `blur` and `noise` in pixels
    and grey levels (0..1); `lamps` scales everything that shines by itself."""

    city: City
    sun_height: Span = (35, 60)
    sun_rgb: Tint = (0.5, 0.47, 0.4)
    sky_rgb: Tint = (0.68, 0.7, 0.74)
    sky_top: Rgb = (70, 120, 190)
    sky_low: Rgb = (190, 212, 230)
    clouds: float = 0.5
    shadow: float = 0.5
    exposure: Tint = (1.0, 1.0, 1.0)
    ambient: float = 1.0
    lamps: float = 0.25
    lit_windows: float = 0.0
    lamps_on: bool = False
    fog: Span = (0.0012, 0.003)
    fog_rgb: Rgb = (196, 208, 220)
    contrast: float = 1.0
    saturation: float = 1.0
    blur: float = 0.0
    noise: float = 0.008
    vignette: float = 0.1
    wet: float = 0.0
    snow: float = 0.0
    streaks: int = 0
    flakes: int = 0


LOOK_TABLE: dict[str, Look] = {
    "source": Look(
        GAME,
        saturation=1.25,
        contrast=1.06,
        fog=(0.0004, 0.001),
        noise=0.003,
        sky_top=(44, 110, 206),
        clouds=0.4,
        exposure=(1.04, 1.0, 0.96),
        vignette=0.0,
        ambient=1.3,
    ),
    "day": Look(
        EUROPE,
        sun_height=(25, 65),
        sun_rgb=(0.55, 0.5, 0.4),
        ambient=1.9,
        saturation=0.72,
        contrast=1.05,
        blur=0.45,
        noise=0.018,
        exposure=(0.9, 0.98, 0.9),
        sky_top=(120, 150, 186),
        sky_low=(226, 230, 230),
        fog=(0.001, 0.0035),
        clouds=0.8,
        vignette=0.25,
        fog_rgb=(214, 218, 216),
    ),
    "dusk": Look(
        EUROPE,
        sun_height=(6, 13),
        sun_rgb=(0.95, 0.5, 0.2),
        sky_rgb=(0.5, 0.5, 0.66),
        sky_top=(66, 82, 132),
        sky_low=(250, 164, 96),
        clouds=0.9,
        shadow=0.5,
        ambient=0.75,
        exposure=(1.04, 0.95, 0.92),
        lamps=1.1,
        lit_windows=0.3,
        lamps_on=True,
        fog=(0.001, 0.0028),
        fog_rgb=(176, 122, 104),
        saturation=0.85,
        blur=0.5,
        noise=0.022,
        vignette=0.3,
    ),
    "night": Look(
        EUROPE,
        sun_rgb=(0.08, 0.08, 0.1),
        sky_rgb=(0.85, 0.88, 1.0),
        sky_top=(22, 26, 44),
        sky_low=(64, 56, 58),
        clouds=0.6,
        shadow=0.95,
        ambient=0.014,
        exposure=(1.0, 0.94, 0.86),
        lamps=1.9,
        lit_windows=0.28,
        lamps_on=True,
        fog=(0.002, 0.005),
        fog_rgb=(46, 42, 44),
        contrast=1.1,
        saturation=0.75,
        blur=0.75,
        noise=0.05,
        vignette=0.5,
    ),
    "fog": Look(
        EUROPE,
        sun_rgb=(0.08, 0.08, 0.08),
        sky_rgb=(0.85, 0.88, 0.9),
        sky_top=(186, 190, 194),
        sky_low=(206, 208, 210),
        clouds=0.1,
        shadow=0.9,
        fog=(0.022, 0.05),
        fog_rgb=(200, 204, 206),
        exposure=(0.92, 0.95, 0.98),
        saturation=0.75,
        blur=0.5,
        noise=0.014,
        lamps=0.6,
        lamps_on=True,
    ),
    "rain": Look(
        EUROPE,
        sun_rgb=(0.06, 0.06, 0.06),
        sky_rgb=(0.76, 0.8, 0.88),
        sky_top=(116, 124, 134),
        sky_low=(168, 174, 180),
        clouds=0.9,
        shadow=0.85,
        ambient=0.8,
        exposure=(0.88, 0.95, 1.04),
        lamps=0.9,
        lit_windows=0.15,
        lamps_on=True,
        fog=(0.006, 0.013),
        fog_rgb=(150, 157, 165),
        saturation=0.75,
        blur=0.55,
        noise=0.02,
        wet=0.8,
        streaks=260,
        vignette=0.25,
    ),
    "snow": Look(
        WINTER,
        sun_rgb=(0.1, 0.1, 0.1),
        sky_rgb=(0.86, 0.89, 0.95),
        sky_top=(196, 202, 210),
        sky_low=(220, 223, 227),
        clouds=0.3,
        shadow=0.85,
        fog=(0.006, 0.014),
        fog_rgb=(212, 216, 222),
        exposure=(0.94, 0.97, 1.03),
        saturation=0.75,
        blur=0.45,
        noise=0.014,
        snow=0.85,
        flakes=420,
        lamps=0.5,
    ),
    "other_city": Look(
        ABROAD,
        sun_height=(50, 75),
        sun_rgb=(0.75, 0.68, 0.52),
        sky_rgb=(0.52, 0.54, 0.58),
        sky_top=(86, 150, 206),
        sky_low=(224, 222, 206),
        clouds=0.3,
        exposure=(1.08, 1.0, 0.86),
        contrast=1.12,
        saturation=0.95,
        blur=0.35,
        noise=0.012,
        fog=(0.001, 0.004),
        fog_rgb=(226, 214, 190),
    ),
}
