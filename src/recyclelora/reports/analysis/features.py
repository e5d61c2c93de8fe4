"""How training changed the features of an image, seen through their principal components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from recyclelora.adapters.changes import UPDATE
from recyclelora.reports.analysis.tables import Row

COMPONENTS = 3


@dataclass(frozen=True)
class LevelView:
    """One level of the backbone on one image; (h, w) are patches.

    Attributes:
        block: whose output it is.
        pretrained, adapted: their projections on the joint principal components, (h, w, 3).
        change: projections of adapted - pretrained on its own components, (h, w, 3).
        joint_share, change_share: share of the variance along each component, (3,).
        relative_change: ||adapted - pretrained|| / ||pretrained|| of every patch, (h, w).
    """

    block: int
    pretrained: np.ndarray
    adapted: np.ndarray
    change: np.ndarray
    joint_share: np.ndarray
    change_share: np.ndarray
    relative_change: np.ndarray


def principal_components(features: Tensor, count: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """Projections of tokens (n, C) on their first principal components, and the share of variance of each.

    The features are centred; each component points to where its largest loading is positive. A constant input has
    shares of 0.

    Returns:
        (n, count) and (count,).
    """
    centred = features.double() - features.double().mean(0)
    variances, vectors = torch.linalg.eigh(centred.T @ centred)
    vectors = vectors.flip(1)[:, :count]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    total = variances.clamp(min=0).sum()
    shares = variances.clamp(min=0).flip(0)[:count] / total if total > 0 else torch.zeros(count)
    return centred @ (vectors * largest.sign()), shares


def fitted(image: np.ndarray, size: tuple[int, int], patch: int) -> np.ndarray:
    """The image resized so that its short side is that of ``size`` (H, W), both multiples of the patch."""
    height, width = image.shape[:2]
    factor = min(size) / min(height, width)
    sides = [max(1, round(side * factor / patch)) * patch for side in (width, height)]
    if (sides[1], sides[0]) == (height, width):
        return image
    resized: np.ndarray = cv2.resize(image, sides, interpolation=cv2.INTER_AREA)
    return resized


@torch.inference_mode()
def compare_features(
    image: np.ndarray, adapted: nn.Module, pretrained: nn.Module, mean: Tensor, std: Tensor
) -> list[LevelView]:
    """Look at both backbones' features of a uint8 RGB image (H, W, 3), its sides multiples of the patch.

    ``mean`` and ``std`` (1, 3, 1, 1) are in units of 0..255.
    """
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(mean.device)
    normalised = (batch.float() - mean) / std
    levels: Sequence[int] = adapted.levels  # type: ignore[assignment]
    pairs = zip(levels, pretrained(normalised), adapted(normalised), strict=True)
    return [_view(block, before[0].cpu(), after[0].cpu()) for block, before, after in pairs]


def _view(block: int, before: Tensor, after: Tensor) -> LevelView:
    channels, height, width = before.shape
    old, new = (f.reshape(channels, -1).T.double() for f in (before, after))
    joint, joint_share = principal_components(torch.cat([old, new]))
    change, change_share = principal_components(new - old)
    size = torch.linalg.vector_norm(new - old, dim=1) / torch.linalg.vector_norm(old, dim=1)

    def grid(projected: Tensor) -> np.ndarray:
        return projected.reshape(height, width, -1).numpy()

    return LevelView(
        block, grid(joint[: len(old)]), grid(joint[len(old) :]), grid(change),
        joint_share.numpy(), change_share.numpy(), size.reshape(height, width).numpy(),
    )  # fmt: skip


def feature_rows(name: str, views: Sequence[LevelView]) -> Iterator[Row]:
    """Mean relative change and shares of variance of every level of one image."""
    for level, view in enumerate(views):

        def row(
            quantity: str, value: float, index: int | None = None, level: int = level, view: LevelView = view
        ) -> Row:
            return Row(f"level_{level}", view.block, "features", name, UPDATE, quantity, float(value), index)

        yield row("relative_change", view.relative_change.mean())
        yield row("change_share_of_three", view.change_share.sum())
        for index in range(COMPONENTS):
            yield row("change_share", view.change_share[index], index)
            yield row("joint_share", view.joint_share[index], index)
