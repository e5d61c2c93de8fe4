"""AdaptFormer (Chen et al., 2022, arXiv 2205.13535): a narrow network beside the MLP of every block.

With x the tokens after a block's attention and residual, the block's output gets s (ReLU(x W_down + b_down) W_up +
b_up) more (equations 3 and 4; without a norm of its own, as in the released configurations). W_up and the biases start
at 0, W_down as a linear layer does: kaiming_uniform(a = sqrt 5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.controls.config import AdaptFormerConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import Unmergeable, uniform_rules
from recyclelora.adapters.transformer import applied, chosen_blocks, device_of, token_width, uniform
from recyclelora.system.checks import accept


class Beside(Unmergeable):
    """The network of one block.

    Args:
        channels: c of a token.
        width: channels between the two layers.
        scale: s.
        generator: of the first layer.
    """

    method = "adaptformer"

    def __init__(self, channels: int, width: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        self.down.weight = nn.Parameter(uniform((width, channels), channels**-0.5, generator))
        for zeros in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeros)
        self.added: list[Tensor] = []

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., c) -> what is added to the block's output, (..., c), in the precision of the tokens."""
        hidden = F.relu(applied(self.down, tokens))
        return self.scale * applied(self.up, hidden)

    def see(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        """What the second norm is given, x, is seen before it is normalised."""
        self.added = [self(arguments[0])]

    def add(self, block: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """The block's output and what was worked out on the way."""
        return output + self.added.pop().view(output.shape)  # SAM's blocks give back a map


class AdaptFormer:
    """AdaptFormer as a method; it adds a module ``adaptformer`` to every chosen block."""

    def __init__(self, options: AdaptFormerConfig) -> None:
        self.options = options

    def check(self, model: nn.Module) -> dict[int, nn.Module]:
        """See `method.Method`; gives the blocks by number."""
        accept(self.options)
        blocks = chosen_blocks(model, self.options.blocks)
        for number, block in blocks.items():
            if not isinstance(getattr(block, "norm2", None), nn.Module):
                raise ValueError(f"blocks.{number} is a {type(block).__name__} without `norm2` in front of its MLP")
        return blocks

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        o, blocks = self.options, self.check(model)
        generator = torch.Generator().manual_seed(context.seed)
        model.requires_grad_(False)
        for block in blocks.values():
            beside = Beside(token_width(model), o.width, o.scale, generator).to(device_of(model))
            block.add_module("adaptformer", beside)
            block.get_submodule("norm2").register_forward_pre_hook(beside.see)
            block.register_forward_hook(beside.add)
        return Adapted(uniform_rules(model, o.lr_mult, o.weight_decay, "adaptformer"))
