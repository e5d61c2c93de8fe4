"""VPT-deep (Jia et al., 2022, arXiv 2203.12119): learned prompts among the tokens of every block.

Before block l its prompts P_l (p, c) stand between class token and patches, in the place of those of the block before;
behind the last block they are dropped. They start U(-v, v) with v = sqrt(6 / (3 patch^2 + c)) and have no rotary
position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.controls.config import VptConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import Unmergeable, uniform_rules
from recyclelora.adapters.transformer import (
    chosen_blocks,
    device_of,
    num_prefix_tokens,
    patch_side,
    token_width,
    uniform,
)
from recyclelora.system.checks import accept


class Prompts(Unmergeable):
    """The prompts of all blocks, (blocks, p, c)."""

    method = "vpt"

    def __init__(self, prompts: Tensor, dropout: float) -> None:
        super().__init__()
        self.table = nn.Parameter(prompts)
        self.dropout = dropout

    def forward(self, layer: int, like: Tensor) -> Tensor:
        """The prompts (B, p, c) that block ``layer`` of the chosen ones gets beside tokens (B, N, c)."""
        prompts = F.dropout(self.table[layer], self.dropout, self.training)
        return prompts.to(like.dtype).expand(len(like), -1, -1)


@dataclass(frozen=True, eq=False)
class Prompted:
    """The two hooks of one block: prompts are there inside it alone, so what other code reads has none.

    Attributes:
        start: tokens in front of the prompts
    """

    prompts: Prompts
    layer: int
    start: int

    def insert(
        self, block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Tokens (B, start + N, c) -> (B, start + p + N, c); prompts see and are seen whatever ``attn_mask`` says."""
        tokens, *others = arguments
        added = self.prompts(self.layer, tokens)
        if (mask := named.get("attn_mask")) is not None:
            named = named | {"attn_mask": self._widened(mask)}
        return (torch.cat([tokens[:, : self.start], added, tokens[:, self.start :]], dim=1), *others), named

    def _widened(self, mask: Tensor) -> Tensor:
        """What is added to logits (B, 1, T, T), with zeros in the rows and columns of the prompts."""
        for dim in (-2, -1):
            before, behind = mask.tensor_split([self.start], dim)
            shape = list(mask.shape)
            shape[dim] = self.prompts.table.shape[1]
            mask = torch.cat([before, mask.new_zeros(shape), behind], dim)
        return mask

    def drop(self, block: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """And back."""
        end = self.start + self.prompts.table.shape[1]
        return torch.cat([output[:, : self.start], output[:, end:]], dim=1)


@dataclass(frozen=True)
class Vpt:
    """VPT-deep as a method; it adds ``model.vpt`` and two hooks to every chosen block."""

    options: VptConfig

    def check(self, model: nn.Module) -> dict[int, nn.Module]:
        """See `method.Method`; gives the blocks by number."""
        accept(self.options)
        blocks = chosen_blocks(model, self.options.blocks)
        for number, block in blocks.items():
            if hasattr(block, "window_size"):
                raise ValueError(
                    f"blocks.{number} of this backbone (SAM) keeps its tokens in a map, which has no place for prompts"
                )
        return blocks

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        o, blocks, width = self.options, self.check(model), token_width(model)
        bound = math.sqrt(6 / (3 * patch_side(model) ** 2 + width))
        generator = torch.Generator().manual_seed(context.seed)
        table = uniform((len(blocks), o.num_prompts, width), bound, generator)
        prompts = Prompts(table, o.dropout).to(device_of(model)).train(model.training)
        model.requires_grad_(False)
        model.add_module("vpt", prompts)
        for layer, block in enumerate(blocks.values()):
            prompted = Prompted(prompts, layer, num_prefix_tokens(model))
            block.register_forward_pre_hook(prompted.insert, with_kwargs=True)
            block.register_forward_hook(prompted.drop)
            attention: Any = getattr(block, "attn", None)
            if isinstance(getattr(attention, "num_prefix_tokens", None), int):  # rotary positions begin behind these
                attention.num_prefix_tokens += o.num_prompts
        return Adapted(uniform_rules(model, o.lr_mult, o.weight_decay, "vpt"))
