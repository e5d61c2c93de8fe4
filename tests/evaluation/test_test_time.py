from __future__ import annotations

import torch

from recyclelora.evaluation.tta import averaged


def left_to_right(images: torch.Tensor) -> torch.Tensor:
    """Two 'classes': the first channel, and the column's number (what a mirror image changes)."""
    columns = torch.arange(images.shape[-1]).expand(len(images), 1, *images.shape[-2:]).float()
    return torch.cat([images[:, :1], columns], 1)


IMAGES = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).to(torch.uint8)


def test_without_views_nothing_changes():
    assert torch.equal(averaged(left_to_right, IMAGES), left_to_right(IMAGES.float()))


def test_a_mirrored_view_is_mirrored_back():
    found = averaged(left_to_right, IMAGES, flip=True)
    assert torch.equal(found[:, 0], IMAGES[:, 0].float())
    assert torch.equal(found[:, 1], torch.full_like(found[:, 1], 2.5))  # (x + 5 - x) / 2


def test_pixels_have_their_centres_in_both_sizes():
    """Columns 0 to 3 at half the size are their means 0.5 and 2.5; back at four columns, a quarter of 2 between."""
    images = torch.arange(4.0).expand(1, 3, 2, 4)
    found = averaged(lambda view: view, images, scales=(0.5,))
    assert found[0, 0, 0].tolist() == [0.5, 1.0, 2.0, 2.5]


def test_scales_are_averaged_at_the_size_of_the_image():
    seen = []

    def constant(images):
        seen.append(tuple(images.shape[-2:]))
        return torch.full((len(images), 2, *images.shape[-2:]), float(images.shape[-1]))

    found = averaged(constant, IMAGES, scales=(0.5, 1.0, 2.0), flip=True)
    assert seen == [(2, 3), (2, 3), (4, 6), (4, 6), (8, 12), (8, 12)]
    assert found.shape == (2, 2, 4, 6) and torch.equal(found, torch.full_like(found, (3 + 6 + 12) / 3))
