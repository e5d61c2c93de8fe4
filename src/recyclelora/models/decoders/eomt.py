"""Queries among the patch tokens, in the manner of EoMT (Kerssies et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from timm.layers.norm import LayerNorm2d
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from recyclelora.models.decoders.config import EomtDecoderConfig
from recyclelora.models.decoders.mask_decoder import MaskDecoder
from recyclelora.models.decoders.mask_loss import MaskLoss


class QueryTokens(MaskDecoder):
    """Learned queries join the tokens of the deepest level in a few transformer blocks; no pixel decoder, no pyramid.

    As in EoMT: plain blocks over queries and patch tokens together, one linear class head, a mask MLP, patch tokens
    upscaled by two steps of deconvolution, a prediction before each block and after the last, Mask2Former's loss.
    Unlike EoMT: the blocks are new ones behind the backbone, at ``width``, not its own last blocks, so that any adapter
    works; and attention is never masked, where EoMT masks it in training and anneals that away.
    """

    class_layer: ClassVar[str] = "class_head"

    def __init__(self, channels: Sequence[int], num_classes: int, options: EomtDecoderConfig) -> None:
        super().__init__(MaskLoss(options.loss), num_classes, options.num_queries)
        width = options.width
        self.inward = nn.Sequential(nn.LayerNorm(channels[-1]), nn.Linear(channels[-1], width))
        self.queries = nn.Embedding(options.num_queries, width)
        self.blocks = nn.ModuleList(Block(width, options.num_heads, qkv_bias=True) for _ in range(options.num_blocks))
        self.norm = nn.LayerNorm(width)
        self.class_head = nn.Linear(width, num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.upscale = nn.Sequential(_Upscale(width), _Upscale(width))
        nn.init.normal_(self.queries.weight, std=0.02)

    def predict(self, features: Sequence[Tensor], query: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`MaskDecoder`; masks have a quarter of the patch's stride."""
        deepest = features[-1]
        size = (deepest.shape[-2], deepest.shape[-1])
        patches = self.inward(deepest.flatten(2).transpose(1, 2))
        tokens = torch.cat([self.queries.weight.expand(patches.shape[0], -1, -1), patches], 1)
        outputs = [self._heads(tokens, size)]
        for block in self.blocks:
            tokens = block(tokens)
            outputs.append(self._heads(tokens, size))
        classes, masks = zip(*outputs, strict=True)
        return list(classes), list(masks)

    def _heads(self, tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Class logits and masks of the queries among tokens (B, Q + h w, width)."""
        queries, patches = self.norm(tokens).split([self.queries.num_embeddings, size[0] * size[1]], 1)
        pixels = self.upscale(patches.transpose(1, 2).unflatten(2, size))
        return self.class_head(queries), torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), pixels)

    def undecayed(self) -> set[str]:
        """Norms and queries."""
        return super().undecayed() | {"queries.weight"}


class _Upscale(nn.Sequential):
    """Twice as large: deconvolution, GELU, depthwise convolution, norm."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
            nn.GELU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False),
            LayerNorm2d(width),
        )
