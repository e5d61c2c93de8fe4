from __future__ import annotations

import colorsys

import numpy as np
import pytest

from recyclelora.data.transforms import (
    Augmentation,
    dominating_share,
    pad,
    recoloured,
    resize,
    resized_shape,
    scaled,
)


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


def test_labels_are_never_interpolated():
    _, label = scene()
    resized = resize(np.zeros((80, 120, 3), np.uint8), label, (57, 91))[1]
    assert set(np.unique(resized)) <= set(np.unique(label))


def test_padding_is_black_and_ignored():
    image, label = pad(np.full((2, 3, 3), 9, np.uint8), np.full((2, 3), 4, np.uint8), (3, 4))
    assert image[2].max() == 0 and image[:, 3].max() == 0 and (image[:2, :3] == 9).all()
    assert (label[2] == 255).all() and (label[:, 3] == 255).all() and (label[:2, :3] == 4).all()


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
                    augmentation(max_redraws=redraws).random_crop(image, label, np.random.default_rng(seed))[1]
                )
                for seed in range(200)
            ]
        )
        for redraws in (0, 10)
    }
    assert share[10] < share[0] - 0.2


def test_brightness_and_contrast_by_hand():
    values = np.array([[[0, 100, 250]]], np.uint8)
    assert scaled(values, 1.0, 10.0).tolist() == [[[10, 110, 255]]]
    assert scaled(values, 0.5, 0.0).tolist() == [[[0, 50, 125]]]


def test_hue_and_saturation_by_hand():
    red = np.array([[[200, 20, 20]]], np.uint8)
    assert recoloured(red, 1.0, 60)[0, 0].tolist() == pytest.approx([20, 200, 20], abs=2)
    grey = recoloured(red, 0.0, 0)[0, 0]
    assert grey.max() - grey.min() <= 1 and grey.max() == 200
    half = recoloured(red, 0.5, 0)[0, 0] / 255
    assert colorsys.rgb_to_hsv(*half)[1] == pytest.approx(0.45, abs=0.02)


def test_result_has_the_crop_size_also_for_small_images():
    image, label = augmentation()(*scene(30, 40), np.random.default_rng(0))
    assert image.shape == (64, 64, 3) and label.shape == (64, 64)
    assert image.dtype == label.dtype == np.uint8


def test_image_and_label_move_together():
    """An image that shows its own label stays the picture of its label."""
    _, label = scene()
    image = np.repeat(label[..., None], 3, -1)
    for seed in range(20):
        chain = augmentation(photometric=0.0, short_edges=(80,))
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
    always = augmentation(flip=1.0, photometric=0.0, short_edges=(64,))(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(always[0], image[:, ::-1])
    np.testing.assert_array_equal(always[1], label[:, ::-1])
