"""Fitting pretrained patch kernels and position embeddings to another patch size and grid.

Two ways: `bicubic`, the published one (plain bicubic interpolation, no antialias, align_corners=False), and `timm`,
timm's own (kernels by the pseudo-inverse of the resize, position embeddings with antialias). All of it runs in float32
and returns its input untouched where the sizes agree already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recyclelora.models.timm_library import timm

Resampling = Literal["bicubic", "timm"]
Size = tuple[int, int]


def resize_patch_kernel(kernel: Tensor, size: Size, resampling: Resampling = "bicubic") -> Tensor:
    """A patch kernel (D, C, h, w) as (D, C, *size).

    Plain interpolation keeps the values' height, not their sum: the response to a flat patch grows with the area.
    """
    if tuple(kernel.shape[-2:]) == size:
        return kernel
    return KERNEL_RESIZERS[resampling](kernel.float(), size)


def resize_position_grid(grid: Tensor, size: Size, resampling: Resampling = "bicubic") -> Tensor:
    """A position embedding (1, h, w, D) as (1, *size, D)."""
    if not torch.compiler.is_exporting() and tuple(grid.shape[1:3]) == size:  # an export is not tied to its example
        return grid
    channels_first = grid.float().permute(0, 3, 1, 2)
    resized = F.interpolate(channels_first, size, mode="bicubic", antialias=ANTIALIAS[resampling], align_corners=False)
    return resized.permute(0, 2, 3, 1)


def resize_position_tokens(tokens: Tensor, size: Size, num_prefix: int, resampling: Resampling = "bicubic") -> Tensor:
    """A position embedding (1, num_prefix + h * h, D) as (1, num_prefix + size[0] * size[1], D).

    The entries of the `num_prefix` CLS and register tokens stay as they are.

    Raises:
        ValueError: the patch entries form no square grid, so its sides are unknown.
    """
    side = square_side(tokens.shape[1] - num_prefix)
    return resize_tokens(tokens, (side, side), size, num_prefix, resampling)


def resize_tokens(tokens: Tensor, grid: Size, size: Size, num_prefix: int, resampling: Resampling) -> Tensor:
    """`resize_position_tokens` of a grid (h, w) that is known and may have any sides."""
    prefix, patches = tokens[:, :num_prefix], tokens[:, num_prefix:]
    resized = resize_position_grid(patches.reshape(1, *grid, -1), size, resampling)
    return torch.cat([prefix.to(resized.dtype), resized.reshape(1, -1, tokens.shape[-1])], dim=1)


def square_side(patches: int) -> int:
    """Side of a square grid of so many patches.

    Raises:
        ValueError: they form none, so its sides are unknown.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"a position embedding of {patches} patches is no square grid")
    return side


def resize_relative_positions(bias: Tensor, length: int) -> Tensor:
    """SAM's relative position biases (2 g - 1, D) of one axis as (length, D): linear, as SAM itself does."""
    if bias.shape[0] == length:
        return bias
    return F.interpolate(bias.float().T[None], length, mode="linear", align_corners=False)[0].T


def _plain(kernel: Tensor, size: Size) -> Tensor:
    return F.interpolate(kernel, size, mode="bicubic", align_corners=False)


def _pseudo_inverse(kernel: Tensor, size: Size) -> Tensor:
    resized: Tensor = timm.layers.patch_embed.resample_patch_embed(kernel, list(size))
    return resized


ANTIALIAS: dict[Resampling, bool] = {"bicubic": False, "timm": True}
KERNEL_RESIZERS: dict[Resampling, Callable[[Tensor, Size], Tensor]] = {"bicubic": _plain, "timm": _pseudo_inverse}
