"""The procedural `streets`: what they promise about determinism, labels and looks."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from recyclelora.data import streets
from recyclelora.data.streets import LOOKS, SIZE, num_scenes, render
from recyclelora.data.streets.canvas import Camera, Canvas, Light
from recyclelora.data.streets.city import paint_street
from recyclelora.data.streets.develop import develop
from recyclelora.data.streets.looks import LOOK_TABLE
from recyclelora.data.streets.plan import Painting

PLAIN_LIGHT = Light((0.0, 1.0, 0.0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
rendered = cache(render)


def equal(left: streets.Scene, right: streets.Scene) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("look", LOOKS)
def test_a_scene_is_an_image_and_train_ids(look: str) -> None:
    image, labels = rendered(look, "val", 0)
    assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
    assert labels.shape == SIZE and labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*range(19), 255}
    assert len(np.unique(labels)) >= 6 and image.std() > 3


def test_a_scene_is_fixed_by_its_name_and_ignores_the_global_generator() -> None:
    np.random.seed(1)  # noqa: NPY002
    first = render("source", "val", 3)
    np.random.seed(2)  # noqa: NPY002
    assert equal(first, render("source", "val", 3))


@pytest.mark.parametrize("other", [("source", "val", 1), ("source", "train", 0), ("day", "val", 0)])
def test_index_split_and_look_each_change_the_scene(other: tuple[str, str, int]) -> None:
    assert (rendered("source", "val", 0)[1] != rendered(*other)[1]).mean() > 0.1


def test_counts() -> None:
    assert num_scenes("source", "train") == 400
    assert all(num_scenes(look, "val") == 40 for look in LOOKS)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (("mars", "val", 0), "no mars/val; choose one of source/train, source/val, day/val"),
        (("night", "train", 0), "no night/train; choose one of"),
        (("source", "test", 0), "no source/test"),
        (("source", "val", 40), "source/val has scenes 0 to 39, not 40"),
        (("source", "val", -1), "scenes 0 to 39, not -1"),
    ],
)
def test_unknown_scenes_say_what_is_allowed(name: tuple[str, str, int], says: str) -> None:
    for call in (lambda: render(*name),):
        with pytest.raises(ValueError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_every_class_occurs_in_the_first_training_scenes() -> None:
    seen = set[int]()
    for index in range(14):
        seen |= set(np.unique(rendered("source", "train", index)[1]).tolist())
    assert seen == {*range(19), 255}


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_every_class_occurs_in_every_look(look: str) -> None:
    seen = set[int]()
    for index in range(40):
        seen |= set(np.unique(rendered(look, "val", index)[1]).tolist())
    assert seen == {*range(19), 255}


@pytest.mark.parametrize("index", range(3))
def test_light_and_weather_leave_geometry_alone(index: int) -> None:
    """The same street under another sun, with lit windows, snow, rain and fog keeps every label and every depth."""
    day, night, snow = LOOK_TABLE["day"], LOOK_TABLE["night"], LOOK_TABLE["snow"]
    plain = paint_street(day, [1, 1, 1, index])
    for other in (night, replace(snow, city=day.city), LOOK_TABLE["rain"]):
        changed = paint_street(other, [1, 1, 1, index])
        assert np.array_equal(plain.labels, changed.labels)
        assert np.array_equal(plain.nearness, changed.nearness)


def test_what_is_filled_is_what_is_labelled() -> None:
    """A polygon in one colour: the pixels of that colour are exactly the pixels of that label."""
    canvas = Canvas(Camera.placed(0, 1.5, 60, 0, 0, 0), PLAIN_LIGHT)
    corners = np.array([[-1.0, 0.0, 8.0], [1.0, 0.2, 8.0], [0.3, 2.0, 8.0]])
    canvas.fill(canvas.camera.project(corners), canvas.surface(13, 8.0), (200, 10, 10))
    coloured = (canvas.colour[::2, ::2, 0] == 200) & (canvas.colour[::2, ::2, 1] == 10)
    assert coloured.sum() > 300
    assert np.array_equal(coloured, canvas.label_map() == 13)
    assert canvas.nearness()[coloured] == pytest.approx(1 / 8)


def test_the_camera_sees_where_geometry_says() -> None:
    """Hand-checked: 90 degrees wide means half the width at one metre to the side per metre ahead."""
    camera = Camera.placed(0, 1.5, 90, 0, 0, 0)
    pixel, scale = camera.spot((4.0, 1.5, 8.0))
    assert pixel == pytest.approx((512 + 256, 256)) and scale == pytest.approx(512 / 8)
    assert camera.spot((0.0, 0.0, 3.0))[0] == pytest.approx((512, 256 + 512 * 1.5 / 3))
    turned = Camera.placed(0, 1.5, 90, 45, 0, 0)
    assert turned.spot((5.0, 1.5, 5.0))[0] == pytest.approx((512, 256))
    nodding = Camera.placed(0, 1.5, 90, 0, 10, 0)
    assert nodding.spot((0.0, 1.5, 9.0))[0][1] < 256


def test_polygons_behind_the_camera_are_cut() -> None:
    camera = Camera.placed(0, 1.5, 60, 0, 0, 0)
    ground = np.array([[-1.0, 0, -5], [1.0, 0, -5], [1.0, 0, 9], [-1.0, 0, 9]])
    assert len(camera.project(ground)) == 4 and np.isfinite(camera.project(ground)).all()
    assert camera.project(ground - (0, 0, 20)).shape == (0, 2)


def test_the_ground_gets_nearer_downwards_and_the_sky_is_infinitely_far() -> None:
    painting = paint_street(LOOK_TABLE["source"], [1, 0, 0, 0])
    assert (painting.nearness[painting.labels == 10] == 0).all()
    road = np.where(painting.ground == 1, painting.nearness, np.nan)[:, 256]
    rows = road[np.isfinite(road)]
    assert (np.diff(rows) > 0).all() and 1 / rows[-1] < 8


def test_night_is_at_most_a_third_as_bright_as_day() -> None:
    night, day = (np.mean([rendered(look, "val", i)[0].mean() for i in range(3)]) for look in ("night", "day"))
    assert night < day / 3


def _seen(painting: Painting, fog: tuple[float, float]) -> np.ndarray:
    look = replace(LOOK_TABLE["fog"], fog=fog, noise=0.0, blur=0.0, lamps=0.0)
    return develop(painting, look, np.random.default_rng(5)).astype(int)


def test_fog_takes_contrast_with_depth() -> None:
    painting = paint_street(LOOK_TABLE["fog"], [1, 4, 1, 0])
    clear, foggy = _seen(painting, (0.0, 0.0)), _seen(painting, (0.04, 0.04))
    depth = 1 / np.maximum(painting.nearness, 1e-3)
    kept = []
    for low, high in ((4, 10), (10, 25), (25, 60)):
        band = (depth >= low) & (depth < high) & (painting.labels != 10)
        kept.append(foggy[band].std() / clear[band].std())
    assert kept[0] > kept[1] > kept[2] and kept[2] < 0.4
