from __future__ import annotations

import cv2
import numpy as np
import pytest

from recyclelora.data import corruptions
from recyclelora.data.config import COMMON_CORRUPTIONS
from recyclelora.data.corruptions import corrupt, plasma
from recyclelora.system.errors import UserError

IMAGE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8), (0, 0), 2)
NOISE_FREE = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")


def test_names_in_the_configuration_are_the_ones_that_exist():
    assert tuple(corruptions.CORRUPTIONS) == COMMON_CORRUPTIONS


@pytest.mark.parametrize("name", COMMON_CORRUPTIONS)
def test_image_name_and_seed_decide(name):
    first = corrupt(IMAGE, name, 3, name="a")
    assert first.dtype == np.uint8 and first.shape == IMAGE.shape
    np.testing.assert_array_equal(first, corrupt(IMAGE, name, 3, name="a"))
    assert (first != IMAGE).any()
    for other in (corrupt(IMAGE, name, 3, name="b"), corrupt(IMAGE, name, 3, name="a", seed=1)):
        assert (first == other).all() == (name in NOISE_FREE)


@pytest.mark.parametrize("name", [name for name in COMMON_CORRUPTIONS if name not in ("fog", "snow", "motion_blur")])
def test_severity_moves_an_image_further_away(name):
    away = [np.abs(corrupt(IMAGE, name, s, name="a").astype(int) - IMAGE).mean() for s in (1, 3, 5)]
    assert away[0] < away[1] < away[2]


def test_noise_has_the_published_strength():
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert corrupt(grey, "gaussian_noise", 1).astype(float).std() / 255 == pytest.approx(0.08, rel=0.02)
    value = 128 / 255
    shot = corrupt(grey, "shot_noise", 1).astype(float) / 255
    assert shot.std() == pytest.approx(np.sqrt(value / 60), rel=0.02)
    impulse = corrupt(grey, "impulse_noise", 5)
    assert (impulse == 0).mean() == pytest.approx(0.135, abs=0.005)
    assert (impulse == 255).mean() == pytest.approx(0.135, abs=0.005)
    assert set(np.unique(impulse)) == {0, 128, 255}


@pytest.mark.parametrize("severity", range(1, 6))
def test_every_severity_has_its_published_constant(severity):
    """Hendrycks and Dietterich (2019), table of constants; compared before values are clipped."""
    level = severity - 1
    grey = np.full((300, 300, 3), 0.5, np.float32)

    def changed(name, image=grey):
        return corruptions.CORRUPTIONS[name](image, level, np.random.default_rng(0))

    noise = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    assert changed("gaussian_noise").std() == pytest.approx(noise, rel=0.01)
    photons = (60, 25, 12, 5, 3)[level]
    assert changed("shot_noise").std() == pytest.approx((0.5 / photons) ** 0.5, rel=0.01)
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    assert (changed("impulse_noise") != 0.5).mean() == pytest.approx(amount, rel=0.05)
    ramp = np.linspace(0, 0.4, 300, dtype=np.float32)[None, :, None].repeat(300, 0).repeat(3, 2)
    np.testing.assert_allclose(changed("brightness", ramp), ramp + 0.1 * severity, atol=1e-5)
    closer = (0.4, 0.3, 0.2, 0.1, 0.05)[level]
    np.testing.assert_allclose(changed("contrast", ramp), 0.2 + closer * (ramp - 0.2), atol=1e-5)
    blocks = int(300 * (0.6, 0.5, 0.4, 0.3, 0.25)[level])
    assert len(np.unique(changed("pixelate", ramp)[0, :, 0])) == blocks
    quality = (25, 18, 15, 10, 7)[level]
    _, data = cv2.imencode(".jpg", IMAGE[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    found = changed("jpeg_compression", IMAGE.astype(np.float32) / 255) * 255
    assert np.abs(found - cv2.imdecode(data, 1)[..., ::-1]).max() <= 1


def test_brightness_and_contrast_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = 200
    assert np.abs(corrupt(image, "brightness", 2).astype(int)[..., 0] - [[251, 251], [51, 51]]).max() <= 1
    # the mean is 100: 100 +- 100 * 0.4
    assert np.abs(corrupt(image, "contrast", 1).astype(int)[..., 0] - [[140, 140], [60, 60]]).max() <= 1


def test_blurs_keep_the_light_of_a_point():
    image = np.zeros((81, 81, 3), np.uint8)
    image[40, 40] = 255
    unit = image.astype(np.float32) / 255
    for name in ("defocus_blur", "motion_blur"):
        spread = corruptions.CORRUPTIONS[name](unit, 0, np.random.default_rng(0))
        assert spread[..., 0].sum() == pytest.approx(1, rel=1e-4)
    disc = corruptions.defocus_blur(unit, 0, np.random.default_rng(0))[..., 0]
    assert (disc > 1e-3).sum() == 29  # points within 3 pixels
    line = corruptions._moved(unit[..., 0], 10, 3, 0.0)
    assert (line > 1e-12).sum() == (line[40] > 1e-12).sum() == 21  # one-sided, along the row


def test_pixelate_and_jpeg_are_what_they_say():
    blocks = corrupt(IMAGE, "pixelate", 5)
    assert len(np.unique(blocks.reshape(-1, 3), axis=0)) <= 16 * 24
    _, data = cv2.imencode(".jpg", IMAGE[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 7])
    assert np.abs(corrupt(IMAGE, "jpeg_compression", 5).astype(int) - cv2.imdecode(data, 1)[..., ::-1]).max() <= 1


def test_zoom_blur_keeps_the_centre_and_constants():
    grey = np.full((40, 60, 3), 90, np.uint8)
    assert np.abs(corrupt(grey, "zoom_blur", 5).astype(int) - 90).max() <= 1


def test_plasma_covers_the_range_and_smooths_with_decay():
    rough, smooth = (plasma((96, 128), decay, np.random.default_rng(0)) for decay in (1.2, 3.0))
    for clouds in (rough, smooth):
        assert clouds.shape == (96, 128) and clouds.min() >= 0 and clouds.max() <= 1
    assert np.abs(np.diff(rough)).mean() > 3 * np.abs(np.diff(smooth)).mean()


def test_glass_moves_pixels_no_further_than_its_reach():
    image = np.zeros((40, 40, 3), np.float32)
    image[20, 20] = 1
    moved = corruptions.glass_blur(image, 0, np.random.default_rng(1))
    rows, columns = np.nonzero(moved[..., 0] > 1e-6)
    reach = 2 + 2 * 3  # two iterations of one pixel, two Gaussians of 0.7 cut at three pixels
    assert max(np.abs(rows - 20).max(), np.abs(columns - 20).max()) <= reach


def test_what_is_not_there_is_refused():
    with pytest.raises(UserError, match="unknown corruption 'frost'; known: gaussian_noise"):
        corrupt(IMAGE, "frost", 1)
    with pytest.raises(UserError, match="severity 6: must lie between 1 and 5"):
        corrupt(IMAGE, "fog", 6)
