"""The position embedding of a timm transformer at any grid: the pretrained one, resampled once.

timm lays the embedding out for one image size and resamples what it laid out for every other one: twice removed from
what was pretrained, and by timm's rule. Here every size starts from the pretrained grid, by one rule, and the last few
sizes are kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from recyclelora.models.backbones.resampling import (
    Resampling,
    Size,
    resize_position_grid,
    resize_relative_positions,
    resize_tokens,
    square_side,
)

KEPT_SIZES = 4
"""A grid of 64x128 patches of width 1,024 takes 32 MiB."""


class Positions:
    """A pretrained position embedding; plain data, outside ``state_dict``, since the weights file holds it.

    Args:
        pretrained: (1, num_prefix + h * h, D), or (1, h, w, D) as SAM keeps it.
        laid_out: what the model's own tensor started as: the same at ``grid``, (1, num_prefix + h * w, D) or
            (1, h, w, D).
        grid: (h, w) of ``laid_out``.
        num_prefix: entries of class and register tokens, which stay as they are.
        resampling: see `resampling`.
        tables: of SAM's global attention: name -> relative positions (2 h - 1, D) or (2 w - 1, D) of one axis, as
            pretrained and as laid out.
    """

    def __init__(
        self,
        pretrained: Tensor,
        laid_out: Tensor,
        grid: Size,
        num_prefix: int,
        resampling: Resampling,
        tables: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.pretrained, self.laid_out = (tensor.detach().float().clone() for tensor in (pretrained, laid_out))
        self.grid, self.num_prefix, self.resampling = grid, num_prefix, resampling
        self.tables = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in (tables or {}).items()}
        self.trained = False
        self.keeps = True
        self._kept: dict[tuple[Any, ...], Tensor] = {}

    def at(self, grid: Size, now: Tensor) -> Tensor:
        """The embedding for a grid (h, w), in shape, device and dtype of ``now``, the model's own tensor.

        What training changed in it is resampled from the grid on which it was trained, and added.
        """
        if torch.compiler.is_compiling():  # sizes may be symbols there
            return self._fitted(grid, now, self.trained or now.requires_grad)
        if not self.keeps or (now.requires_grad and torch.is_grad_enabled()) or now.is_inference():
            return self._fitted(grid, now, changed=True)
        key = (grid, now.device, now.dtype, now.data_ptr(), now._version)
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # kept for later, perhaps for training
                self.look_at(now)
                self._kept[key] = self._fitted(grid, now, self.trained)
            for oldest in list(self._kept)[:-KEPT_SIZES]:
                del self._kept[oldest]
        return self._kept[key]

    def tables_at(self, grid: Size, model: Any) -> dict[str, Tensor]:
        """SAM's tables for a grid, by their names in the model; they are small, and so not kept."""
        found = {}
        for name, (pretrained, laid_out) in self.tables.items():
            now = model.get_parameter(name)
            length = 2 * grid[0 if name.endswith("_h") else 1] - 1
            change = now - laid_out.to(now)
            found[name] = resize_relative_positions(pretrained.to(now), length) + resize_relative_positions(
                change, length
            )
        return found

    def look_at(self, now: Tensor) -> None:
        """Notice whether training has changed the model's own tensor; nobody can while a graph is traced."""
        self.trained = not torch.equal(now, self.laid_out.to(now))

    def _fitted(self, grid: Size, now: Tensor, changed: bool) -> Tensor:
        pretrained = self.pretrained.to(now.device)
        if pretrained.dim() == 4:
            fitted = resize_position_grid(pretrained, grid, self.resampling)
        else:
            side = square_side(pretrained.shape[1] - self.num_prefix)
            fitted = resize_tokens(pretrained, (side, side), grid, self.num_prefix, self.resampling)
        if changed:
            change = now.float() - self.laid_out.to(now.device)
            if change.dim() == 4:
                fitted = fitted + resize_position_grid(change, grid, self.resampling)
            else:
                fitted = fitted + resize_tokens(change, self.grid, grid, self.num_prefix, self.resampling)
        return fitted.to(now.dtype)


class At:
    """A timm transformer with the position embedding of another grid; everything else is the model's own.

    timm reads the embedding and the grid it belongs to from the model in every forward. This stands in for the model
    there, so that nothing of it changes and several sizes may run at once.
    """

    def __init__(self, model: Any, grid: Size, positions: Positions) -> None:
        self.model = model
        self.pos_embed = positions.at(grid, model.pos_embed)
        self.patch_embed = _PatchEmbed(model.patch_embed, grid)
        tables: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for name, table in positions.tables_at(grid, model).items():
            _, number, inside = name.split(".", 2)
            tables[int(number)][inside] = table
        self.blocks = [
            partial(functional_call, block, tables[number]) if number in tables else block
            for number, block in enumerate(model.blocks)
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _pos_embed(self, x: Tensor) -> Any:
        return type(self.model)._pos_embed(self, x)

    def forward_intermediates(self, images: Tensor, **options: Any) -> Any:
        """As timm's."""
        return type(self.model).forward_intermediates(self, images, **options)


class _PatchEmbed:
    def __init__(self, patch_embed: Any, grid: Size) -> None:
        self.patch_embed, self.grid_size = patch_embed, grid

    def __call__(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embed(images)
        return tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self.patch_embed, name)
