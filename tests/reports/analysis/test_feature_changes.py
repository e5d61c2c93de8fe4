from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from recyclelora.reports.analysis.feature_figures import captions, feature_change, feature_picture
from recyclelora.reports.analysis.features import compare_features, feature_rows, fitted, principal_components

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)


class Patches(nn.Module):
    """Four levels: the mean colour of every 8x8 patch, times a factor, plus a shift."""

    levels = (0, 1, 2, 3)

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.factor * nn.functional.avg_pool2d(images, 8) + self.shift] * 4


def compared(adapted: nn.Module, pretrained: nn.Module):
    return compare_features(IMAGE, adapted, pretrained, torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))


def test_principal_components_of_known_axes():
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    scores = torch.linalg.qr(torch.randn(50, 4, generator=generator, dtype=torch.float64)).Q
    scores = torch.linalg.qr(scores - scores.mean(0)).Q * torch.tensor([4.0, 3.0, 2.0, 1.0]).double()
    projections, shares = principal_components(7.0 + scores @ rotation[:, :4].T)
    torch.testing.assert_close(projections.abs(), scores[:, :3].abs(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(shares, torch.tensor([16, 9, 4]).double() / 30)


def test_constant_features_have_no_components():
    projections, shares = principal_components(torch.ones(10, 5))
    assert not projections.any() and not shares.any()


def test_unchanged_features_do_not_change():
    for view in compared(Patches(1.0), Patches(1.0)):
        assert not view.relative_change.any() and not view.change_share.any()
        np.testing.assert_allclose(view.pretrained, view.adapted)


def test_relative_change_of_scaled_features():
    views = compared(Patches(1.5), Patches(1.0))
    assert [view.block for view in views] == [0, 1, 2, 3]
    assert views[0].pretrained.shape == (4, 8, 3)
    np.testing.assert_allclose(views[0].relative_change, 0.5, rtol=1e-6)
    assert views[0].change_share.sum() == pytest.approx(1.0)
    rows = list(feature_rows("night", views))
    found = [row for row in rows if row.quantity == "relative_change"]
    assert [(row.layer, row.branch) for row in found] == [(f"level_{i}", "night") for i in range(4)]
    assert found[0].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((256, 512), (256, 512)), ((1024, 2048), (256, 512)), ((100, 333), (256, 848)), ((720, 480), (384, 256))],
)
def test_images_are_fitted_to_whole_patches(size, expected):
    assert fitted(np.zeros((*size, 3), np.uint8), (256, 512), 16).shape == (*expected, 3)


def test_pictures_are_written(tmp_path):
    views = compared(Patches(1.5, 20.0), Patches(1.0))
    feature_picture(IMAGE, views, tmp_path / "a.png", "night", "a run")
    feature_change(list(feature_rows("night", views)), tmp_path / "b.png", "a run")
    for name in "ab":
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 1


def test_file_names_of_images():
    assert captions({"night": IMAGE, "a/b c": IMAGE}) == {"night": "features_night.png", "a/b c": "features_a_b_c.png"}
