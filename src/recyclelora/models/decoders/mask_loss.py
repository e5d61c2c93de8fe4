"""The loss of decoders whose queries each predict one class and one mask (Mask2Former, section 3.3).

All outputs (deep supervision) and images of a batch are matched and compared at once, with one wait for the device.
Everything is worked out in float32, also under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.models.decoders.loss_options import MaskLossConfig
from recyclelora.models.decoders.matching import Matched, assign, matching_cost
from recyclelora.models.decoders.points import sample, uncertain_points
from recyclelora.system.distributed import mean_over_processes


@dataclass(frozen=True)
class MaskLoss:
    """Class cross-entropy, mask binary cross-entropy and dice, summed over the outputs."""

    options: MaskLossConfig

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self,
        classes: Sequence[Tensor],
        masks: Sequence[Tensor],
        labels: Tensor,
        ignore_index: int,
        norm: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_mask`` and ``loss_dice`` of a batch.

        Each class of an image is one target, its mask the pixels with that label; ignored pixels are in no mask. An
        image without labels has no target: all its queries learn "no object".

        Args:
            classes: logits (B, Q, C + 1) of every output, no-object last; Q must not be below C
            masks: logits (B, Q, h, w) of every output
            labels: (B, H, W) train ids
            ignore_index: train id that does not count
            norm: the mean of :meth:`counts` over all batches that are one step; None: over the processes
        """
        with torch.autocast(labels.device.type, enabled=False):
            logits = torch.stack([c.float() for c in classes])
            drawn = [m.float() for m in masks]
            targets = class_masks(labels, logits.shape[-1] - 1, ignore_index)
            present = targets.flatten(2).any(-1)
            losses = self.compare(logits, drawn, targets, present, self.match(logits, drawn, targets, present), norm)
        return {name: loss.sum() for name, loss in losses.items()}

    @torch.no_grad()
    def match(self, classes: Tensor, masks: Sequence[Tensor], targets: Tensor, present: Tensor) -> Matched:
        """The query of every (image, class) pair of ``present`` (B, C).

        Masks and ``targets`` (B, C, H, W) of every output and image are compared at random points of its own.
        """
        weights = {name: getattr(self.options, name) for name in ("class_weight", "mask_weight", "dice_weight")}
        costs = []
        for logits, drawn in zip(classes, masks, strict=True):
            points = torch.rand(len(targets), self.options.num_points, 2, device=targets.device)
            costs.append(matching_cost(logits, sample(drawn, points), sample(targets, points), **weights))
        return assign(torch.stack(costs).cpu(), present.cpu())  # the second finds the device idle

    def counts(self, present: Tensor, num_queries: int) -> Tensor:
        """What the class loss and the two mask losses are divided by, (2,) float32, where ``present`` (B, C) says which
        classes each image shows: the weights of all queries; the masks, as published at least one for an image."""
        targets = present.sum(1)
        matched = targets.sum()
        weights = matched + self.options.no_object_weight * (len(present) * num_queries - matched)
        return torch.stack([weights, targets.clamp(min=1).sum()]).float()

    def compare(
        self,
        classes: Tensor,
        masks: Sequence[Tensor],
        targets: Tensor,
        present: Tensor,
        matched: Matched,
        norm: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The three losses (outputs,) of matched queries."""
        if norm is None:
            norm = mean_over_processes(self.counts(present, classes.shape[2]))
        class_norm, num_masks = norm
        bce, dice = self._mask_losses(masks, targets, matched)
        return {
            "loss_cls": self.options.class_weight * self._class_losses(classes, matched) / class_norm,
            "loss_mask": self.options.mask_weight * bce / num_masks,
            "loss_dice": self.options.dice_weight * dice / num_masks,
        }

    def _class_losses(self, classes: Tensor, matched: Matched) -> Tensor:
        """Weighted sums (outputs,) of the queries' cross-entropy."""
        num_classes = classes.shape[-1] - 1
        target = torch.full(classes.shape[:3], num_classes)
        target[torch.arange(len(target))[:, None], matched.images, matched.queries] = matched.classes
        weight = torch.ones(num_classes + 1)
        weight[-1] = self.options.no_object_weight
        device = classes.device
        each = F.cross_entropy(classes.flatten(0, 2), target.flatten().to(device), weight.to(device), reduction="none")
        return each.view(len(classes), -1).sum(1)

    def _mask_losses(self, masks: Sequence[Tensor], targets: Tensor, matched: Matched) -> tuple[Tensor, Tensor]:
        """Sums (outputs,) over the pairs of binary cross-entropy and dice at points chosen for every mask."""
        images, wanted, queries = (x.to(targets.device) for x in (matched.images, matched.classes, matched.queries))
        chosen = torch.cat([m[images, q] for m, q in zip(masks, queries, strict=True)])
        if not len(chosen):
            nothing = chosen.sum()  # keeps every parameter in the graph, with a gradient of 0
            return nothing.expand(len(masks)), nothing.expand(len(masks))
        with torch.no_grad():
            points = uncertain_points(chosen, self.options.num_points, self.options.oversample, self.options.importance)
            # the pairs are the same in every output: one look at their targets serves them all
            together = torch.cat(points.chunk(len(masks)), 1)
            truth = sample(targets[images, wanted][:, None], together)[:, 0]
            target = torch.cat(truth.chunk(len(masks), 1))
        logits = sample(chosen[:, None], points)[:, 0]
        bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        sigmoid = logits.sigmoid()
        dice = 1 - (2 * (sigmoid * target).sum(1) + 1) / (sigmoid.sum(1) + target.sum(1) + 1)
        return bce.view(len(masks), -1).sum(1), dice.view(len(masks), -1).sum(1)


def class_masks(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Labels (B, H, W) as a mask of 0 and 1 for every class: (B, num_classes, H, W)."""
    classes = torch.arange(num_classes, device=labels.device).view(-1, 1, 1)
    masks = (labels[:, None] == classes) & (labels != ignore_index)[:, None]
    return masks.float()
