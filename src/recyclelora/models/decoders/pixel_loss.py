"""The loss of dense decoders: cross-entropy and what is made of it, Dice, Lovász."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.models.decoders.loss_options import PixelLossConfig
from recyclelora.system.distributed import mean_over_processes


class PixelLoss:
    """Named losses of logits (B, K, H, W) for train ids (B, H, W).

    Args:
        options: which, and how much each counts
        names: of the classes, by train id
    """

    def __init__(self, options: PixelLossConfig, names: Sequence[str]) -> None:
        self.options = options
        self.weights: Tensor | None = None
        """(K,) of the classes in cross-entropy; None: all 1"""
        if options.class_weights:
            self.weights = torch.tensor([options.class_weights.get(name, 1.0) for name in names])

    def balance(self, pixels: np.ndarray) -> None:
        """Weigh classes by how rare they are, besides the weights that are given.

        Args:
            pixels: of each class in each training image, (N, K)
        """
        assert self.options.balance is not None
        found = torch.from_numpy(balanced(pixels, self.options.balance)).float()
        self.weights = found if self.weights is None else found * self.weights

    def __call__(
        self, logits: Tensor, labels: Tensor, ignore_index: int, norm: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each is a mean over labelled pixels, or over the classes that they show, times its weight.

        ``norm`` is what :meth:`counts` gives as a mean over the parts of a step, of which these are one.
        """
        o = self.options
        found: dict[str, Tensor] = {}
        if o.cross_entropy:
            plain = self.weights is None and not o.focal and not o.label_smoothing
            per_step = cross_entropy(logits, labels, ignore_index, norm) if plain else None
            if per_step is None:
                per_step = self._weighted(logits, labels, ignore_index).sum() / self._norm(labels, ignore_index, norm)
            found["loss_ce"] = per_step if o.cross_entropy == 1 else o.cross_entropy * per_step
        if o.dice or o.lovasz:
            part = self.counts(labels, ignore_index) / self._norm(labels, ignore_index, norm)
            probabilities, truth = _labelled(logits, labels, ignore_index)
            if o.dice:
                found["loss_dice"] = o.dice * part * dice(probabilities, truth)
            if o.lovasz:
                found["loss_lovasz"] = o.lovasz * part * lovasz(probabilities, truth)
        return found

    def counts(self, labels: Tensor, ignore_index: int) -> Tensor:
        """Labelled pixels, by the weights of their classes: a float scalar."""
        if self.weights is None:
            return labelled_pixels(labels, ignore_index).float()
        return self._of_labels(labels, ignore_index).sum()

    def _of_labels(self, labels: Tensor, ignore_index: int) -> Tensor:
        """The weight (B, H, W) of each pixel, 0 where it has no label."""
        labelled = labels != ignore_index
        if self.weights is None:
            return labelled.float()
        return self.weights.to(labels.device)[torch.where(labelled, labels, 0).long()] * labelled

    def _norm(self, labels: Tensor, ignore_index: int, norm: Tensor | None) -> Tensor:
        whole = mean_over_processes(self.counts(labels, ignore_index)) if norm is None else norm
        return torch.where(whole > 0, whole, 1)

    def _weighted(self, logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        """``w_y (1 - p_y)^gamma (-(1 - e) log p_y - e/K sum_k log p_k)`` of each pixel, (B, H, W).

        The factor with gamma is that of Lin et al., Focal Loss, ICCV 2017, eq. 4; e smooths labels as in Szegedy et
        al., CVPR 2016, section 7.
        """
        smoothing = self.options.label_smoothing
        log_p = logits.float().log_softmax(1)
        own = log_p.gather(1, torch.where(labels == ignore_index, 0, labels).long()[:, None])[:, 0]
        loss = -(1 - smoothing) * own - smoothing * log_p.mean(1)
        if self.options.focal:
            loss = loss * (1 - own.exp()).clamp(min=1e-6) ** self.options.focal
        return loss * self._of_labels(labels, ignore_index)


def _labelled(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Probabilities (N, K) and train ids (N,) of the labelled pixels."""
    labelled = labels != ignore_index
    return logits.float().softmax(1).permute(0, 2, 3, 1)[labelled], labels[labelled].long()


def dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    """``1 - mean_c 2 sum(p_c g_c) / sum(p_c + g_c)`` over the classes that ``truth`` shows (Milletari et al., 2016).

    Args:
        probabilities: (N, K)
        truth: train ids (N,)
    """
    hits = F.one_hot(truth, probabilities.shape[1]).to(probabilities.dtype)
    shown = hits.sum(0) > 0
    overlap = 2 * (probabilities * hits).sum(0) / (probabilities + hits).sum(0).clamp(min=1e-9)
    return ((1 - overlap) * shown).sum() / shown.sum().clamp(min=1)


def lovasz(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Lovász-Softmax over the classes that ``truth`` shows: Berman et al., CVPR 2018, eqs. 8, 9 and 11.

    The Jaccard loss of mispredicted pixels is extended to errors m in [0, 1]: with m sorted from the largest, its
    gradient is how much the Jaccard loss grows with each further pixel.

    Args:
        probabilities: (N, K)
        truth: train ids (N,)
    """
    found = []
    for index in torch.unique(truth).tolist():
        hit = (truth == index).to(probabilities.dtype)
        errors, order = (hit - probabilities[:, index]).abs().sort(descending=True)
        hit = hit[order]
        jaccard = 1 - (hit.sum() - hit.cumsum(0)) / (hit.sum() + (1 - hit).cumsum(0))
        found.append((errors * torch.cat([jaccard[:1], jaccard.diff()])).sum())
    return torch.stack(found).mean() if found else probabilities.sum() * 0


def balanced(pixels: np.ndarray, rule: str) -> np.ndarray:
    """A weight (K,) for each class out of its pixels in each image, (N, K); 1 where no image shows it.

    ``median``: median frequency over the class's own, both in the images that show it (Eigen and Fergus, ICCV 2015).
    ``log``: ``1 / ln(1.02 + p)`` with p the class's share of all pixels (Paszke et al., ENet, 2016).
    """
    pixels = np.asarray(pixels, np.float64)
    totals = pixels.sum(0)
    shown = totals > 0
    if rule == "log":
        weights = 1 / np.log(1.02 + totals / max(totals.sum(), 1))
    else:
        sizes = (pixels.sum(1)[:, None] * (pixels > 0)).sum(0)
        frequency = totals / np.maximum(sizes, 1)
        weights = np.median(frequency[shown]) / np.where(shown, frequency, 1) if shown.any() else np.ones(len(totals))
    return np.where(shown, weights, 1.0)


def labelled_pixels(labels: Tensor, ignore_index: int) -> Tensor:
    """How many pixels of train ids (B, H, W) have a label: a scalar."""
    return (labels != ignore_index).sum()


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int, norm: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the labelled pixels of all processes; 0, with a gradient of 0, where none is labelled.

    Args:
        logits: (B, num_classes, H, W)
        labels: (B, H, W) train ids
        ignore_index: train id that does not count
        norm: labelled pixels to divide by, where ``labels`` are a part of a step: their mean over all its parts
    """
    rows, ids = logits, labels
    if logits.is_cuda and torch.are_deterministic_algorithms_enabled():  # the kernel for maps is not, that for rows is
        rows, ids = logits.movedim(1, -1).flatten(0, -2), labels.flatten()
    total = F.cross_entropy(rows, ids, ignore_index=ignore_index, reduction="sum")
    labelled = mean_over_processes(labelled_pixels(labels, ignore_index)) if norm is None else norm
    return total / torch.where(labelled > 0, labelled, 1)
