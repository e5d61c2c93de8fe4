from __future__ import annotations

import cv2
import numpy as np
import pytest

from recyclelora.data.labels import PADDING
from recyclelora.data.photometric import Photometric
from recyclelora.data.transforms import (
    WARP_FROM,
    Augmentation,
    Wanted,
    class_counts,
    dominating_share,
    nearest_indices,
    pad,
    resized_crop,
    resized_shape,
)

PLAIN = Photometric(photometric=0.0)


def augmentation(**changes):
    return Augmentation(**({"crop": (64, 64), "short_edges": (64, 96)} | changes))


def scene(height=80, width=120):
    rng = np.random.default_rng(0)
    label = np.kron(rng.integers(0, 19, (8, 12)), np.ones((10, 10), int)).astype(np.uint8)[:height, :width]
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8), label


def test_short_edge_and_long_edge_limit():
    assert resized_shape((1052, 1914), 512, 2048) == (512, 932)
    assert resized_shape((1914, 1052), 512, 2048) == (932, 512)
    assert resized_shape((100, 1000), 512, 2048) == (205, 2048)


SIZES = [((1052, 1914), short) for short in (256, 307, 409, 512, 716, 1024)] + [
    ((720, 1280), 512), ((720, 1280), 1024), ((1914, 1052), 614), ((256, 512), 320), ((97, 131), 64), ((900, 999), 800),
]  # fmt: skip


def window_in(size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
    return augmentation(crop=(300, 300)).crop_window(size, rng)


@pytest.mark.parametrize(("shape", "short"), SIZES)
def test_the_label_crop_is_the_crop_of_the_resized_label(shape: tuple[int, int], short: int):
    """The published order, resize everything and then cut, to the last pixel."""
    rng = np.random.default_rng(short)
    label = rng.integers(0, 19, shape).astype(np.uint8)
    size = resized_shape(shape, short, 2048)
    whole = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
    rows, columns = nearest_indices(shape[0], size[0]), nearest_indices(shape[1], size[1])
    np.testing.assert_array_equal(label[rows][:, columns], whole)
    chain = augmentation(crop=(300, 300), short_edges=(short,), max_redraws=0)
    drawn, window, cut = chain.draw_crop(label, rng)
    assert drawn == size
    np.testing.assert_array_equal(cut, whole[window])


@pytest.mark.parametrize(("shape", "short"), SIZES)
@pytest.mark.parametrize("smooth", [True, False])
def test_the_image_crop_is_within_one_level_of_the_crop_of_the_resized_image(
    shape: tuple[int, int], short: int, smooth: bool
):
    """Noise is the hardest case: neighbours differ by up to 255 levels."""
    rng = np.random.default_rng(short)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3) if smooth else image
    size = resized_shape(shape, short, 2048)
    whole = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    for _ in range(2):
        window = window_in(size, rng)
        crop = resized_crop(image, size, window)
        assert np.abs(whole[window] - crop).max() <= 1
        if size[0] * size[1] <= WARP_FROM * crop.shape[0] * crop.shape[1]:
            np.testing.assert_array_equal(whole[window], crop)


def test_windows_at_the_corners_are_within_one_level_too():
    image = np.random.default_rng(0).integers(0, 256, (500, 700, 3)).astype(np.uint8)
    size = (900, 1260)
    whole = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    for rows in (slice(0, 64), slice(836, 900)):
        for columns in (slice(0, 64), slice(1196, 1260)):
            assert np.abs(whole[rows, columns] - resized_crop(image, size, (rows, columns))).max() <= 1


def test_an_image_of_the_wanted_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    window = slice(10, 74), slice(20, 84)
    np.testing.assert_array_equal(resized_crop(image, (90, 120), window), image[window])


def test_padding_is_black_and_ignored():
    image, label = pad(np.full((2, 3, 3), 9, np.uint8), np.full((2, 3), 4, np.uint8), (3, 4))
    assert image[2].max() == 0 and image[:, 3].max() == 0 and (image[:2, :3] == 9).all()
    assert (label[2] == 255).all() and (label[:, 3] == 255).all() and (label[:2, :3] == 4).all()


@pytest.mark.parametrize("size", [(2, 5), (4, 3), (2, 3), (1, 1)])
def test_padding_of_one_side_alone(size: tuple[int, int]):
    image, label = np.full((2, 3, 3), 9, np.uint8), np.full((2, 3), 4, np.uint8)
    wider = ((0, max(size[0] - 2, 0)), (0, max(size[1] - 3, 0)))
    padded, mask = pad(image, label, size)
    np.testing.assert_array_equal(mask, np.pad(label, wider, constant_values=255))
    np.testing.assert_array_equal(padded, np.pad(image, (*wider, (0, 0))))


def test_dominating_share_counts_labelled_pixels_only():
    assert dominating_share(np.array([[1, 1, 1, 2, 255, 255]], np.uint8)) == 0.75
    assert dominating_share(np.full((2, 2), 255, np.uint8)) == 1.0


def test_crop_is_redrawn_while_one_class_dominates():
    """Left nine tenths are one class; only windows at the right edge show a second one."""
    label = np.zeros((64, 640), np.uint8)
    label[:, 576:] = np.arange(64, dtype=np.uint8)[:, None] % 19
    image = np.zeros((64, 640, 3), np.uint8)
    share = {
        redraws: np.mean(
            [
                dominating_share(
                    augmentation(short_edges=(64,), max_redraws=redraws).random_crop(
                        image, label, np.random.default_rng(seed)
                    )[1]
                )
                for seed in range(200)
            ]
        )
        for redraws in (0, 10)
    }
    assert share[10] < share[0] - 0.2


class Windows(Augmentation):
    """Counts the windows it draws."""

    def crop_window(self, size, rng):
        self.drawn.append(super().crop_window(size, rng))
        return self.drawn[-1]


def counting(**changes) -> Windows:
    chain = Windows(**({"crop": (64, 64), "short_edges": (64,)} | changes))
    object.__setattr__(chain, "drawn", [])
    return chain


def test_ten_redraws_and_no_more_where_one_class_dominates_everywhere():
    chain = counting()
    cut = chain.random_crop(np.zeros((64, 256, 3), np.uint8), np.zeros((64, 256), np.uint8), np.random.default_rng(0))
    assert len(chain.drawn) == 11
    assert cut[1].shape == (64, 64)  # the eleventh is taken as it is


def test_a_share_of_exactly_three_quarters_is_drawn_again_and_less_is_not():
    label = np.zeros((64, 64), np.uint8)
    label[48:] = 1
    image = np.zeros((64, 64, 3), np.uint8)
    exactly, below = counting(), counting()
    exactly.random_crop(image, label, np.random.default_rng(0))
    label[47, 0] = 1
    below.random_crop(image, label, np.random.default_rng(0))
    assert (len(exactly.drawn), len(below.drawn)) == (11, 1)


def test_unlabelled_pixels_do_not_count_for_the_share():
    """Half of the crop is unlabelled; of the rest one class has three quarters."""
    label = np.full((64, 64), 255, np.uint8)
    label[:24], label[24:32] = 5, 6
    chain = counting()
    chain.random_crop(np.zeros((64, 64, 3), np.uint8), label, np.random.default_rng(0))
    assert len(chain.drawn) == 11
    chain = counting()
    label[:12] = 7
    chain.random_crop(np.zeros((64, 64, 3), np.uint8), label, np.random.default_rng(0))
    assert len(chain.drawn) == 1


def test_the_draws_are_those_of_resizing_first():
    """Step by step as published, on whole arrays, from the same generator."""

    def drawn_window(size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
        """The upper edge first, then the left one, each uniform over all that keep 64 x 80 pixels inside."""
        top, left = (int(rng.integers(0, max(size[axis] - (64, 80)[axis], 0) + 1)) for axis in (0, 1))
        return slice(top, top + 64), slice(left, left + 80)

    image, label = scene()
    chain = augmentation(crop=(64, 80), short_edges=(48, 64, 96, 150), max_class_ratio=0.2, colours=PLAIN)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        size = resized_shape((80, 120), int(rng.choice(chain.short_edges)), 2048)
        whole = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST)
        picture = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        window = drawn_window(size, rng)
        for _ in range(10):
            counts = np.bincount(whole[window].ravel(), minlength=256)[:255]
            if counts.max() / counts.sum() < 0.2:
                break
            window = drawn_window(size, rng)
        expected = pad(picture[window], whole[window], (64, 80))
        step = slice(None, None, -1) if rng.random() < 0.5 else slice(None)
        seen, mask = chain(image, label, np.random.default_rng(seed))
        np.testing.assert_array_equal(mask, expected[1][:, step])
        assert np.abs(seen.astype(int) - expected[0][:, step]).max() <= 1


def test_a_crop_that_lacks_the_wanted_class_is_drawn_again():
    label = np.zeros((64, 640), np.uint8)
    label[:, 600:] = 7
    image = np.zeros((64, 640, 3), np.uint8)
    chain = augmentation(short_edges=(64,), max_class_ratio=1.0)

    def shown(wanted: Wanted | None) -> float:
        crops = (chain.geometry(image, label, np.random.default_rng(seed), wanted)[1] for seed in range(100))
        return float(np.mean([(crop == 7).sum() >= 500 for crop in crops]))

    assert shown(Wanted(7, 500)) > shown(None) + 0.3


def test_pixels_of_each_id():
    label = np.array([[0, 3, 3, 255]], np.uint8)
    counts = class_counts(label)
    assert counts.dtype == np.int64 and counts.sum() == 4
    assert (counts[0], counts[3], counts[255]) == (1, 2, 1)
    assert class_counts(np.zeros((4096, 4097), np.uint8))[0] == 4096 * 4097


def test_result_has_the_crop_size_also_for_small_images():
    image, label = augmentation()(*scene(30, 40), np.random.default_rng(0))
    assert image.shape == (64, 64, 3) and label.shape == (64, 64)
    assert image.dtype == label.dtype == np.uint8


def test_image_and_label_move_together():
    """An image that shows its own label stays the picture of its label."""
    _, label = scene()
    image = np.repeat(label[..., None], 3, -1)
    for seed in range(20):
        chain = augmentation(colours=PLAIN, short_edges=(80,))
        seen, mask = chain(image, label, np.random.default_rng(seed))
        np.testing.assert_array_equal(seen[..., 0][mask != 255], mask[mask != 255])


def test_same_generator_state_same_sample():
    first = augmentation()(*scene(), np.random.default_rng(7))
    again = augmentation()(*scene(), np.random.default_rng(7))
    other = augmentation()(*scene(), np.random.default_rng(8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_flip_probability_is_respected():
    image, label = scene(64, 64)
    always = augmentation(flip=1.0, colours=PLAIN, short_edges=(64,))(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(always[0], image[:, ::-1])
    np.testing.assert_array_equal(always[1], label[:, ::-1])


def test_padding_last_stays_at_the_right_and_bottom_and_only_there():
    """As mmsegmentation's preprocessor stacks a batch: after the flip, so that a flipped crop has its edge at the right
    too; with padding first it moves to the left."""
    image, label = np.full((30, 40, 3), 200, np.uint8), np.full((30, 40), 3, np.uint8)
    changes = {"flip": 1.0, "short_edges": (30,), "crop": (64, 80)}
    _, last = augmentation(padding="last", **changes).geometry(image, label, np.random.default_rng(0))
    expected = np.full((64, 80), PADDING, np.uint8)
    expected[:30, :40] = 3
    np.testing.assert_array_equal(last, expected)
    _, first = augmentation(**changes).geometry(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(first, np.where(expected == PADDING, 255, expected)[:, ::-1])


def test_where_nothing_is_padded_both_orders_are_the_same_sample():
    for seed in range(5):
        samples = [
            augmentation(padding=order)(*scene(), np.random.default_rng(seed)) for order in ("first", "last")
        ]  # fmt: skip
        for one, other in zip(*samples, strict=True):
            np.testing.assert_array_equal(one, other)
