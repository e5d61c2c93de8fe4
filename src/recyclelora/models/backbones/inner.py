"""The last blocks of an encoder, left to a decoder whose queries are tokens among the encoder's own (EoMT)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recyclelora.models.backbones.timm import TimmBackbone


@dataclass(frozen=True, eq=False)
class InnerBlocks:
    """The last ``count`` blocks of a backbone, with the adapters in them, as decoders know them (`decoder.Inner`).

    No module: their parameters stay the backbone's alone, under its names. A deep copy of whoever holds this and of the
    backbone together refers to the copied backbone.

    Raises:
        ValueError: there are not as many blocks, none would be left in front, or they keep their tokens in a map.
    """

    backbone: TimmBackbone
    count: int

    def __post_init__(self) -> None:
        depth = self.backbone.depth
        if not 1 <= self.count < depth:
            raise ValueError(
                f"decoder.num_blocks={self.count}: must lie between 1 and {depth - 1}: the backbone has {depth}, "
                "and one at least comes before the queries"
            )
        if any(hasattr(block, "window_size") for block in self.model.blocks):
            raise ValueError(
                "the blocks of this backbone (SAM) keep their tokens in a map, which has no place for queries: "
                "use decoder=query_tokens"
            )

    @property
    def model(self) -> Any:
        """timm's transformer."""
        return self.backbone.model

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.backbone.embed_dim

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.backbone.patch_size

    @property
    def norm(self) -> nn.Module:
        """The final norm; an identity where the pretrained model has none."""
        norm: nn.Module = self.model.norm
        return norm

    def rotations(self, grid: tuple[int, int], num_queries: int) -> Tensor | None:
        """See :meth:`.decoder.Inner.rotations`."""
        rope = getattr(self.model, "rope", None)
        if rope is None:
            return None
        sines, cosines = rope.get_embed(shape=grid).chunk(2, -1)
        rows = (0, 0, num_queries, 0)
        return torch.cat([F.pad(sines, rows), F.pad(cosines, rows, value=1.0)], -1)

    def run(self, index: int, tokens: Tensor, rotations: Tensor | None, mask: Tensor | None) -> Tensor:
        """See :meth:`.decoder.Inner.run`."""
        number = len(self.model.blocks) - self.count + index
        given: dict[str, Tensor | None] = {"attn_mask": mask}
        if rotations is not None:
            given["rope"] = rotations[number] if getattr(self.model, "rope_mixed", False) else rotations
        block = self.model.blocks[number]
        if self.model.grad_checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(partial(block, **given), tokens, use_reentrant=False)
            return recomputed
        found: Tensor = block(tokens, **given)
        return found
