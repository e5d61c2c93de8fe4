"""Queries among the patch tokens: EoMT (Kerssies et al., CVPR 2025, arXiv 2503.19108), and its blocks put elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.models.decoders.config import EomtDecoderConfig
from recyclelora.models.decoders.decoder import Inner
from recyclelora.models.decoders.mask_decoder import MaskDecoder
from recyclelora.models.decoders.mask_loss import MaskLoss
from recyclelora.models.timm_library import Block, LayerNorm2d

ANNEALED_IN = 4
"""Each block's masks go within this part of the whole time, however many blocks there are."""


class TokenDecoder(MaskDecoder):
    """What is predicted from queries and patch tokens: a linear class head, a mask MLP, patches upscaled."""

    class_layer: ClassVar[str] = "class_head"

    def _add_heads(self, width: int, num_classes: int, num_upscales: int) -> None:
        self.class_head = nn.Linear(width, num_classes + 1)
        self.mask_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.upscale = nn.Sequential(*(_Upscale(width) for _ in range(num_upscales)))

    def _draw(self, queries: Tensor, patches: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Class logits (B, Q, C + 1) and mask logits (B, Q, H, W) of normalised queries (B, Q, c) and patch tokens
        (B, h w, c) of ``size`` (h, w)."""
        pixels = self.upscale(patches.transpose(1, 2).unflatten(2, size))  # type: ignore[no-untyped-call]
        return self.class_head(queries), torch.einsum("bqc,bchw->bqhw", self.mask_head(queries), pixels)

    def undecayed(self) -> set[str]:
        """Norms and queries."""
        return super().undecayed() | {"queries.weight"}


class Eomt(TokenDecoder):
    """EoMT: learned queries join the tokens of the encoder in front of its last blocks, which process both.

    Before each of these blocks and behind the last, the encoder's final norm is followed by a prediction, all under
    Mask2Former's loss. In training a query sees in a block only the patches where the mask it has drawn before it is
    above 0.5, besides all queries and prefix tokens; with probability 1 - P_b it sees everything. P_b falls from 1 to 0
    while training goes on, block by block (section 3.3), so that inference needs no masks, and draws one output alone.

    Features are what enters the first of the blocks, see :meth:`.timm.TimmBackbone.forward`.
    """

    def __init__(self, inner: Inner, num_classes: int, options: EomtDecoderConfig) -> None:
        super().__init__(MaskLoss(options.loss), num_classes, options.num_queries)
        self.inner_blocks, self.options = inner, options
        self.queries = nn.Embedding(options.num_queries, inner.width)
        # Masks as in Mask2Former, at stride 4: a patch of 14 or 16 pixels has one and two steps to go.
        self._add_heads(inner.width, num_classes, max(1, int(math.log2(inner.patch_size)) - 2))
        # Where the pretrained model ends without a norm, heads would stand on tokens of any size.
        self.norm = nn.LayerNorm(inner.width) if isinstance(inner.norm, nn.Identity) else nn.Identity()
        self.begin_step(0.0)

    def begin_step(self, progress: float) -> None:
        """Set P_b of every block for a step, ``progress`` of all steps being finished."""
        blocks = range(self.inner_blocks.count)
        self.masked = [masked_share(progress, block, self.inner_blocks.count, self.options) for block in blocks]

    def predict(self, features: Sequence[Tensor], query: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`MaskDecoder`; masks have stride 4 with patches of 16."""
        classes, masks = zip(*self._outputs(features, every=True), strict=True)
        return list(classes), list(masks)

    def predict_last(self, features: Sequence[Tensor], query: Tensor | None) -> tuple[Tensor, Tensor]:
        """See :class:`MaskDecoder`."""
        return self._outputs(features, every=False)[-1]

    def _outputs(self, features: Sequence[Tensor], every: bool) -> list[tuple[Tensor, Tensor]]:
        """Class and mask logits, first to last; those that no mask and nobody else wants are left out."""
        *prefix, patches = (level.flatten(2).transpose(1, 2) for level in features)
        size = (features[-1].shape[-2], features[-1].shape[-1])
        queries = self.queries.weight.expand(patches.shape[0], -1, -1)
        parts = [sum(part.shape[1] for part in prefix), self.num_queries, patches.shape[1]]
        tokens = torch.cat([*prefix, queries, patches], 1)
        rotations = self.inner_blocks.rotations(size, self.num_queries)
        outputs = []
        for index in range(self.inner_blocks.count):
            mask = None
            masked = self.masked[index] if self.training else 0.0
            if every or masked > 0:
                outputs.append(self._heads(tokens, parts, size))
            if masked > 0:
                mask = attention_mask(tokens, parts, seen(outputs[-1][1], size, masked))
            tokens = self.inner_blocks.run(index, tokens, rotations, mask)
        return [*outputs, self._heads(tokens, parts, size)]

    def _heads(self, tokens: Tensor, parts: list[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        _, queries, patches = self.norm(self.inner_blocks.norm(tokens)).split(parts, 1)
        return self._draw(queries, patches, size)


class QueryTokens(TokenDecoder):
    """EoMT's queries and heads behind any backbone: plain new blocks at ``width`` over queries and the tokens of the
    deepest level, whose attention is never masked."""

    def __init__(self, channels: Sequence[int], num_classes: int, options: EomtDecoderConfig) -> None:
        super().__init__(MaskLoss(options.loss), num_classes, options.num_queries)
        width = options.width
        self.inward = nn.Sequential(nn.LayerNorm(channels[-1]), nn.Linear(channels[-1], width))
        self.queries = nn.Embedding(options.num_queries, width)
        self.blocks = nn.ModuleList(Block(width, options.num_heads, qkv_bias=True) for _ in range(options.num_blocks))
        self.norm = nn.LayerNorm(width)
        self._add_heads(width, num_classes, num_upscales=2)
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
        queries, patches = self.norm(tokens).split([self.num_queries, size[0] * size[1]], 1)
        return self._draw(queries, patches, size)


def masked_share(progress: float, block: int, count: int, options: EomtDecoderConfig) -> float:
    """P_b of ``block`` (0-based) of ``count``: 1 until its masks begin to go, (1 - how far they are)^power, then 0.

    With the defaults as in the released configurations: the first block begins after a sixth of the steps, the last is
    done after five sixths, each takes a sixth.
    """
    length = (options.anneal_end - options.anneal_start) / ANNEALED_IN
    last = options.anneal_end - length
    begin = options.anneal_start + (last - options.anneal_start) * block / max(1, count - 1)
    if progress < begin:
        return 1.0
    if progress >= begin + length:
        return 0.0
    return float((1 - (progress - begin) / length) ** options.anneal_power)


@torch.no_grad()
def seen(masks: Tensor, size: tuple[int, int], masked: float) -> Tensor:
    """The patches of ``size`` (h, w) that each query sees, (B, Q, h w): those inside its mask, logits (B, Q, H, W); all
    of them with probability 1 - ``masked``."""
    inside = F.interpolate(masks.float(), size=size, mode="bilinear", align_corners=False).flatten(2) > 0
    if masked >= 1:
        return inside
    return inside | (torch.rand(inside.shape[:2], device=inside.device) > masked)[..., None]


def attention_mask(tokens: Tensor, parts: Sequence[int], seen: Tensor) -> Tensor:
    """What is added to the attention's logits, (B, 1, T, T), where of tokens (B, T, c), ``parts`` of which are prefix,
    queries and patches, queries see only the patches ``seen`` (B, Q, h w)."""
    batch, length, _ = tokens.shape
    prefix, queries, _ = parts
    mask = tokens.new_zeros(batch, 1, length, length)
    mask[:, 0, prefix : prefix + queries, prefix + queries :].masked_fill_(~seen, -torch.inf)
    return mask


class _Upscale(nn.Sequential):
    """Twice as large: deconvolution, GELU, depthwise convolution, norm."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
            nn.GELU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False),
            LayerNorm2d(width),
        )
