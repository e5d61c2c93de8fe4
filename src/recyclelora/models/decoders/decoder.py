"""What every decoder offers; a dense one only has to write ``forward``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from recyclelora.models.decoders.loss_options import PixelLossConfig
from recyclelora.models.decoders.pixel_loss import PixelLoss


class Decoder(Protocol):
    """From the features of four levels to scores of every pixel.

    Features are four maps (B, C, h, w), one for each depth that is read, all at the stride of a patch.

    A decoder that changes while training goes on may have ``begin_step(progress)`` as well: told before every step
    which part of all steps is finished.

    ``query`` (num_queries, width) comes from adapters that speak to the decoder's queries (Rein). Only a decoder whose
    options say ``has_queries`` is given one.
    """

    def __call__(self, features: Sequence[Tensor], size: tuple[int, int], query: Tensor | None = None) -> Tensor:
        """Scores (B, num_classes, H, W) for ``size`` (H, W); the class of a pixel is the one with the highest."""

    def losses(
        self,
        features: Sequence[Tensor],
        labels: Tensor,
        ignore_index: int,
        query: Tensor | None = None,
        norm: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Named losses, to be summed, for train ids (B, H, W).

        Each is a sum over the batch divided by what :meth:`counts` says of it, as a mean over all processes; ``norm``,
        of the same shape, stands for that mean where the batch is one of several parts of a step.
        """

    def counts(self, labels: Tensor, ignore_index: int) -> Tensor:
        """What the losses of a batch of labels (B, H, W) are divided by: float32, and for two batches together the sum
        of theirs."""

    def probabilities(self, scores: Tensor) -> Tensor:
        """Scores (B, num_classes, H, W) as probabilities that sum to 1 over the classes."""

    def undecayed(self) -> set[str]:
        """Names of the parameters whose weight decay is 0."""

    def per_class(self) -> set[str]:
        """Names of the parameters whose first rows are the classes in their order; rows behind them belong to none."""


class Inner(Protocol):
    """The last ``count`` blocks of a backbone, for a decoder whose queries go through them; no module."""

    @property
    def count(self) -> int:
        """How many blocks."""

    @property
    def width(self) -> int:
        """Channels of a token."""

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""

    @property
    def norm(self) -> nn.Module:
        """The final norm; an identity where the pretrained model has none."""

    def rotations(self, grid: tuple[int, int], num_queries: int) -> Tensor | None:
        """Rotary positions (..., Q + h w, 2 d), sines before cosines, of queries in front of a grid (h, w) of patches.

        Queries have no place in the image and are not rotated. None for a model without rotary positions.
        """

    def run(self, index: int, tokens: Tensor, rotations: Tensor | None, mask: Tensor | None) -> Tensor:
        """One block, 0-based among these.

        Args:
            index: of the block
            tokens: (B, prefix + Q + h w, C)
            rotations: see :meth:`rotations`
            mask: added to the attention's logits, (B, 1, T, T) over the tokens; None: everybody sees everybody
        """


class DenseDecoder(nn.Module):
    """A decoder of per-pixel class logits, trained by cross-entropy or what its options' ``loss`` asks for.

    Its last layer is called ``classifier``; a concrete one with other parameters per class says so in `per_class`.
    """

    pixel_loss = PixelLoss(PixelLossConfig(), ())
    """cross-entropy; whoever builds a model gives each decoder its own"""

    def losses(
        self,
        features: Sequence[Tensor],
        labels: Tensor,
        ignore_index: int,
        query: Tensor | None = None,
        norm: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Mean cross-entropy over the labelled pixels, as ``loss_ce``, or what ``pixel_loss`` asks for."""
        logits = self(features, (labels.shape[-2], labels.shape[-1]))
        return self.pixel_loss(logits, labels.long(), ignore_index, norm)

    def counts(self, labels: Tensor, ignore_index: int) -> Tensor:
        """Labelled pixels, a scalar."""
        return self.pixel_loss.counts(labels, ignore_index)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Softmax over the classes."""
        return scores.float().softmax(1)

    def undecayed(self) -> set[str]:
        """Weights and biases of the norms."""
        return norm_parameters(self)

    def per_class(self) -> set[str]:
        """Weight and bias of the classifier."""
        return own_parameters(self, "classifier")


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def norm_parameters(module: nn.Module) -> set[str]:
    """Names of the parameters that belong to normalisation layers."""
    return {
        f"{path}.{name}"
        for path, norm in module.named_modules()
        if isinstance(norm, NORMS)
        for name, _ in norm.named_parameters()
    }


def own_parameters(module: nn.Module, layer: str) -> set[str]:
    """Names of the parameters of ``layer``, a layer of ``module``."""
    return {f"{layer}.{name}" for name, _ in module.get_submodule(layer).named_parameters()}
