"""What stands in the cities of `streets`: styles of buildings, vehicles and plants."""

from dataclasses import dataclass

Rgb = tuple[int, int, int]
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
