from __future__ import annotations

import math

import pytest
import torch

from recyclelora.exchange.exports.agreement import (
    Agreement,
    ExportReport,
    Tolerance,
    compare_features,
    compare_scores,
    probe,
)
from recyclelora.system.errors import UserError

TOLERANCE = Tolerance(relative=0.1, equal_pixels=0.75)
IMAGES = torch.zeros(1, 3, 1, 4)


def test_features_are_compared_over_all_levels():
    expected = [torch.tensor([1.0, -4.0]), torch.tensor([2.0, 0.0])]
    found = [torch.tensor([1.0, -4.0]), torch.tensor([2.5, 0.0])]
    assert compare_features(IMAGES, expected, found) == Agreement((1, 3, 1, 4), 0.5, 4.0)
    broken = [found[0], torch.tensor([2.0, math.nan])]
    assert math.isnan(compare_features(IMAGES, expected, broken).max_abs_difference)


def test_scores_count_pixels_of_the_same_class():
    expected = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 2.0]]).view(1, 2, 1, 4)
    found = expected.clone()
    found[0, 1, 0, 0] = 1.5
    agreement = compare_scores(IMAGES, expected, found)
    assert agreement == Agreement((1, 3, 1, 4), 1.5, 2.0, 0.75)
    assert str(agreement) == "at 1x4: max abs difference 1.5 of 2, 75.0000% of the pixels equal"


@pytest.mark.parametrize(
    ("difference", "equal", "within"),
    [(0.2, 0.75, True), (0.21, 0.75, False), (0.2, 0.74, False), (0.2, None, True), (math.nan, 1.0, False)],
)
def test_tolerance(difference, equal, within):
    check = Agreement((1, 3, 8, 8), difference, 2.0, equal)
    assert check.within(TOLERANCE) is within
    report = ExportReport([Agreement((1, 3, 8, 8), 0.0, 2.0), check], TOLERANCE)
    if within:
        report.verify()
    else:
        with pytest.raises(UserError, match=r"disagrees with the adapted model at 8x8.*allowed: 0.1 of the largest"):
            report.verify()


def test_probes_are_images_and_always_the_same():
    images = probe(2, (16, 24))
    assert images.shape == (2, 3, 16, 24) and torch.equal(images, images.round())
    assert 0 <= images.min() < 60 and 195 < images.max() <= 255
    assert torch.equal(images, probe(2, (16, 24)))
