"""What each look of `streets` is: a city (what stands there) and a light, weather and camera (how it is seen)."""

from dataclasses import dataclass

Rgb = tuple[int, int, int]
Tint = tuple[float, float, float]
Span = tuple[float, float]


@dataclass(frozen=True)
class City:
    """Building, vehicle and plant styles. Spans are uniform ranges in metres, shares are probabilities."""

    walls: tuple[Rgb, ...]
    brick: float
    storey: Span
    window: Span
    storeys: tuple[int, int]
    arches: float
    balconies: float
    paints: tuple[Rgb, ...]
    cars: tuple[str, ...]
    leaves: tuple[Rgb, ...]
    species: tuple[int, ...]
    signs: tuple[int, ...]
    marking: Rgb
    yellow_plates: bool = False
    wooden_poles: bool = False
    tarmac: Span = (88, 112)
    camera_height: Span = (1.3, 1.7)
    hfov: Span = (54, 64)


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


_GREY_CARS: tuple[Rgb, ...] = (
    (28, 30, 34),
    (60, 63, 68),
    (128, 132, 136),
    (176, 180, 184),
    (216, 218, 220),
    (232, 232, 230),
)

GAME = City(
    walls=((206, 178, 140), (190, 150, 118), (168, 88, 66), (214, 200, 172), (150, 122, 104), (186, 170, 156)),
    brick=0.4,
    storey=(3.1, 3.6),
    window=(1.2, 1.6),
    storeys=(3, 7),
    arches=0.1,
    balconies=0.25,
    paints=(*_GREY_CARS, (178, 24, 28), (24, 66, 160), (212, 160, 30), (34, 104, 70)),
    cars=("saloon", "coupe", "hatch", "suv", "van"),
    leaves=((66, 92, 46), (84, 104, 54), (56, 82, 46)),
    species=(0, 1, 2, 3),
    signs=(0, 1, 2, 3, 5),
    marking=(222, 222, 216),
)

EUROPE = City(
    walls=(
        (216, 206, 186),
        (196, 184, 160),
        (224, 214, 190),
        (170, 158, 146),
        (202, 168, 132),
        (148, 146, 144),
        (178, 122, 100),
    ),
    brick=0.2,
    storey=(2.9, 3.9),
    window=(0.95, 1.4),
    storeys=(3, 6),
    arches=0.2,
    balconies=0.35,
    paints=(*_GREY_CARS, (120, 26, 30), (38, 58, 98), (92, 96, 84), (150, 130, 104)),
    cars=("hatch", "estate", "saloon", "van", "suv", "hatch"),
    leaves=((76, 100, 48), (96, 108, 58), (60, 86, 46)),
    species=(0, 1, 2, 3, 4),
    signs=(0, 1, 2, 4, 5, 6),
    marking=(208, 208, 202),
    tarmac=(78, 120),
)

WINTER = City(
    walls=EUROPE.walls,
    brick=0.35,
    storey=EUROPE.storey,
    window=EUROPE.window,
    storeys=(2, 5),
    arches=0.1,
    balconies=0.2,
    paints=EUROPE.paints,
    cars=EUROPE.cars,
    leaves=((62, 78, 52), (70, 74, 56)),
    species=(4, 5, 8, 8, 0),
    signs=EUROPE.signs,
    marking=EUROPE.marking,
    tarmac=(74, 96),
)

ABROAD = City(
    walls=(
        (236, 226, 206),
        (232, 186, 126),
        (196, 108, 78),
        (150, 176, 180),
        (228, 206, 198),
        (138, 66, 54),
        (246, 240, 230),
    ),
    brick=0.5,
    storey=(3.3, 4.6),
    window=(0.8, 2.4),
    storeys=(1, 4),
    arches=0.6,
    balconies=0.6,
    paints=(*_GREY_CARS[3:], (226, 170, 34), (226, 170, 34), (70, 140, 150), (160, 60, 40)),
    cars=("suv", "van", "coupe", "suv", "saloon"),
    leaves=((92, 112, 44), (118, 124, 58), (70, 106, 60)),
    species=(6, 7, 6, 7, 4, 1),
    signs=(7, 7, 8, 3, 8),
    marking=(232, 186, 60),
    yellow_plates=True,
    wooden_poles=True,
    tarmac=(104, 138),
    camera_height=(1.9, 2.5),
    hfov=(74, 86),
)

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
