"""What a method that adds tokens or modules of its own asks of a timm transformer, or of a bare stack of blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.blocks import parse_blocks


def chosen_blocks(model: nn.Module, blocks: str) -> dict[int, nn.Module]:
    """The blocks that a text such as ``8:`` names, by number; raises what `parse_blocks` raises."""
    holder: Any = model.blocks
    return {number: holder[number] for number in parse_blocks(blocks, len(holder))}


def token_width(model: nn.Module) -> int:
    """Channels of a token: what the model says, or what its first linear layer takes in."""
    stated = getattr(model, "embed_dim", None)
    if isinstance(stated, int):
        return stated
    return next(module.in_features for module in model.modules() if isinstance(module, nn.Linear))


def patch_side(model: nn.Module) -> int:
    """Side of a patch in pixels; 16 for a bare stack of blocks."""
    patch_embed = getattr(model, "patch_embed", None)
    return 16 if patch_embed is None else int(patch_embed.patch_size[0])


def num_prefix_tokens(model: nn.Module) -> int:
    """Class and register tokens in front of the patches."""
    return int(getattr(model, "num_prefix_tokens", 0))


def device_of(model: nn.Module) -> torch.device:
    """Where the model is."""
    return next(model.parameters()).device


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """U(-bound, bound) from the generator."""
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def applied(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer in the precision of ``x``; its own tensors stay float32."""
    return F.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))
