from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.models.decoders.pyramid import BilinearPyramid, LearnedPyramid, build_pyramid


def levels(size=(4, 6)):
    torch.manual_seed(0)
    return [torch.randn(2, 8, *size) for _ in range(4)]


def test_the_bilinear_pyramid_is_the_published_one():
    f = levels()
    pyramid = build_pyramid("bilinear", [8] * 4)
    assert not list(pyramid.parameters())
    f4, f8, f16, f32 = pyramid(f)
    assert torch.equal(f4, F.interpolate(f[0], size=(16, 24), mode="bilinear", align_corners=False))
    assert torch.equal(f8, F.interpolate(f[1], size=(8, 12), mode="bilinear", align_corners=False))
    assert torch.equal(f16, f[2])
    # half the size, without antialiasing: the mean of each 2x2
    torch.testing.assert_close(f32, F.avg_pool2d(f[3], 2))


def test_convolving_first_gives_the_same_maps():
    convolutions = [nn.Conv2d(8, 4, 1, bias=bias) for bias in (False, True, True, True)]
    for pyramid in (BilinearPyramid(), LearnedPyramid([8] * 4)):
        expected = [c(x) for c, x in zip(convolutions, pyramid(levels()), strict=True)]
        for ours, theirs in zip(pyramid.project(levels(), convolutions), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bilinear", "learned"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 3)])
def test_sizes(kind, size):
    h, w = size
    halved = (max(h // 2, 1), max(w // 2, 1)) if h > 1 else size
    shapes = [tuple(x.shape[-2:]) for x in build_pyramid(kind, [8] * 4)(levels(size))]
    assert shapes == [(4 * h, 4 * w), (2 * h, 2 * w), size, halved]


def test_a_learned_pyramid_has_three_deconvolutions_and_a_norm():
    count = sum(p.numel() for p in LearnedPyramid([8] * 4).parameters())
    assert count == 3 * (8 * 8 * 4 + 8) + 2 * 8
