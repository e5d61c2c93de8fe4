"""The segmenter: normalise -> backbone -> decoder, in one module that is trained, scored and exported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.losses.loss import ExtraLoss, LossInputs, with_extras


class Segmenter(nn.Module):
    """Images with values 0 to 255 in, per-pixel class logits out.

    Args:
        backbone: normalised images (B, 3, H, W) -> four feature maps (B, C, H/p, W/p); has a ``patch_size`` p
        decoder: features and a size (H, W) -> scores (B, num_classes, H, W); see ``decoders.decoder``. One that runs
            the last blocks of the backbone itself has them as ``inner_blocks`` and begins with what enters these.
        mean, std: per channel, in units of 0..1
        ignore_index: train id that does not count in the loss
        padding_index: train id of pixels that lie outside their image: 0 after the normalisation, ignored in the loss;
            None where there are none
        query: gives the queries (num_queries, width) that an adapter lends the decoder
        penalty: gives the loss of the adapter itself
        extra_losses: added to the decoder's
        max_steps: of the training, for decoders that change while it goes on (``begin_step``)
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        ignore_index: int,
        padding_index: int | None = None,
        query: Callable[[], Tensor] | None = None,
        penalty: Callable[[], Tensor] | None = None,
        extra_losses: Sequence[ExtraLoss] = (),
        max_steps: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.ignore_index = ignore_index
        self.padding_index = padding_index
        self.query = query
        self.penalty = penalty
        self.extra_losses = tuple(extra_losses)
        self.max_steps = max_steps
        self.step = 0
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, images: Tensor, labels: Tensor | None = None, norm: Tensor | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Scores (B, num_classes, H, W) of images (B, 3, H, W); with labels (B, H, W), the named losses instead.

        Where the images are one of several parts of a step, ``norm`` is the mean of :meth:`counts` over all of them.
        """
        if labels is None:
            return self.logits(images)
        padded, truth, query = self.shown(images, labels), self._padded_labels(labels), self._query()
        features = self.features(padded)
        losses: dict[str, Tensor] = self.decoder.losses(features, truth, self.ignore_index, query, norm)  # type: ignore[operator]
        if self.penalty is not None:
            losses = losses | {"loss_adapter": self.penalty()}
        if not self.extra_losses:
            return losses
        size = (truth.shape[-2], truth.shape[-1])
        decoded = partial(self.decoder, size=size, query=query)
        inputs = LossInputs(
            padded, truth, self.ignore_index, features, self.step, partial(decoded, features),
            decoded, self.features, self.decoder.probabilities, self.backbone,  # type: ignore[arg-type]
        )  # fmt: skip
        return with_extras(losses, self.extra_losses, inputs)

    def shown(self, images: Tensor, labels: Tensor) -> Tensor:
        """What the backbone is given in training of images (B, 3, H, W) with labels (B, H, W)."""
        normalised = self._normalised(images)
        if self.padding_index is not None:
            outside = labels == self.padding_index
            normalised = normalised.masked_fill(outside[:, None], 0.0)
        return self._padded(normalised)

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """What the decoder begins with, of normalised images (B, 3, H, W) with sides of whole patches."""
        return entering(self.decoder, self.backbone, images)

    def begin_step(self, step: int) -> None:
        """Tell losses and decoder how many steps are finished."""
        self.step = step
        begin: Callable[[float], None] = getattr(self.decoder, "begin_step", lambda progress: None)
        begin(step / self.max_steps)

    def counts(self, labels: Tensor) -> Tensor:
        """What the losses of labels (B, H, W) are divided by; see :meth:`.decoders.decoder.Decoder.counts`."""
        counts: Tensor = self.decoder.counts(self._padded_labels(labels), self.ignore_index)  # type: ignore[operator]
        return counts

    def logits(self, images: Tensor) -> Tensor:
        """Scores (B, num_classes, H, W) of uint8 or float images (B, 3, H, W) of any size."""
        padded = self._padded(self._normalised(images))
        size = (padded.shape[-2], padded.shape[-1])
        scores: Tensor = self.decoder(self.features(padded), size, self._query())
        return scores[..., : images.shape[-2], : images.shape[-1]]

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std

    def _padded(self, normalised: Tensor) -> Tensor:
        """Padded with zeros at the right and bottom to multiples of the patch size."""
        bottom, right = self._padding(normalised)
        return F.pad(normalised, (0, right, 0, bottom))

    def _padded_labels(self, labels: Tensor) -> Tensor:
        """Labels of the size of the padded images; nothing outside an image counts."""
        if self.padding_index is not None:
            labels = labels.masked_fill(labels == self.padding_index, self.ignore_index)
        bottom, right = self._padding(labels)
        return F.pad(labels, (0, right, 0, bottom), value=self.ignore_index)

    def _padding(self, images: Tensor) -> tuple[int, int]:
        patch = int(self.backbone.patch_size)  # type: ignore[arg-type]
        return -images.shape[-2] % patch, -images.shape[-1] % patch

    def _query(self) -> Tensor | None:
        return None if self.query is None else self.query()

    def sliding_logits(
        self, images: Tensor, window: int, stride: int, batch_size: int = 4,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Tensor:  # fmt: skip
        """Logits averaged over overlapping square windows of ``window`` pixels every ``stride``.

        ``advance`` is told of windows done.
        """
        height, width = images.shape[-2:]
        boxes = list(windows((height, width), window, stride))
        total: Tensor | None = None
        counts = torch.zeros(1, 1, height, width, device=images.device)
        for first in range(0, len(boxes), batch_size):
            part = boxes[first : first + batch_size]
            crops = torch.cat([images[..., y, x] for y, x in part])
            logits = torch.split(self.logits(crops), len(images))
            if total is None:
                total = logits[0].new_zeros(len(images), logits[0].shape[1], height, width)
            for (y, x), scores in zip(part, logits, strict=True):
                total[..., y, x] += scores
                counts[..., y, x] += 1
            advance(len(part))
        assert total is not None
        return total / counts


def windows(size: tuple[int, int], window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    """Windows that cover ``size`` (H, W); the last of a row or column is moved back inside the image."""
    for y in _starts(size[0], window, stride):
        for x in _starts(size[1], window, stride):
            yield slice(y, min(y + window, size[0])), slice(x, min(x + window, size[1]))


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - window), 0) for index in range(count)]


def entering(decoder: nn.Module, backbone: nn.Module, images: Tensor) -> Sequence[Tensor]:
    """The features of normalised images that a decoder begins with: those before the blocks that it runs itself."""
    inner = getattr(decoder, "inner_blocks", None)
    features: Sequence[Tensor] = backbone(images) if inner is None else backbone(images, inner.count)
    return features
