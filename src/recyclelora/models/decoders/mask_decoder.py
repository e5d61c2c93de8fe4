"""What decoders by masks share: queries that each predict a class and a mask, and the scores that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.decoders.decoder import norm_parameters, own_parameters
from recyclelora.models.decoders.mask_loss import MaskLoss, class_masks


class MaskDecoder(nn.Module):
    """A decoder of queries; a concrete one writes :meth:`predict`.

    Args:
        loss: compares predictions with labels
        num_classes: C
        num_queries: Q

    Raises:
        ValueError: there are more classes than queries.
    """

    class_layer: ClassVar[str]
    """The layer of the class logits: a row for every class, and one more, the last, for no object."""

    def __init__(self, loss: MaskLoss, num_classes: int, num_queries: int) -> None:
        super().__init__()
        if num_queries < num_classes:
            raise ValueError(f"decoder.num_queries={num_queries}: must not be below the {num_classes} classes")
        self.loss = loss
        self.num_classes, self.num_queries = num_classes, num_queries

    def predict(self, features: Sequence[Tensor], query: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits (B, Q, C + 1), no-object last, and mask logits (B, Q, h, w) of every supervised output."""
        raise NotImplementedError

    def predict_last(self, features: Sequence[Tensor], query: Tensor | None) -> tuple[Tensor, Tensor]:
        """The last of :meth:`predict`'s outputs, for decoders that need not draw the others for it."""
        classes, masks = self.predict(features, query)
        return classes[-1], masks[-1]

    def forward(self, features: Sequence[Tensor], size: tuple[int, int], query: Tensor | None = None) -> Tensor:
        """Scores (B, C, H, W) for ``size`` (H, W), each between 0 and Q: the sum over queries of
        ``softmax(class) sigmoid(mask)``, mask logits first made as large as the image."""
        classes, masks = self.predict_last(features, query)
        with torch.autocast(masks.device.type, enabled=False):
            drawn = F.interpolate(masks.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
            chances = classes.float().softmax(-1)[..., :-1]
            return torch.einsum("bqc,bqhw->bchw", chances, drawn)

    def losses(
        self,
        features: Sequence[Tensor],
        labels: Tensor,
        ignore_index: int,
        query: Tensor | None = None,
        norm: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_mask`` and ``loss_dice``, weighted, summed over all outputs."""
        classes, masks = self.predict(features, query)
        losses: dict[str, Tensor] = self.loss(classes, masks, labels, ignore_index, norm)
        return losses

    def counts(self, labels: Tensor, ignore_index: int) -> Tensor:
        """See :meth:`.mask_loss.MaskLoss.counts`."""
        present = class_masks(labels, self.num_classes, ignore_index).flatten(2).any(-1)
        return self.loss.counts(present, self.num_queries)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Each pixel's scores as shares of their sum."""
        scores = scores.float()
        return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def undecayed(self) -> set[str]:
        """Weights and biases of the norms."""
        return norm_parameters(self)

    def per_class(self) -> set[str]:
        """Weight and bias of the class logits."""
        return own_parameters(self, self.class_layer)
