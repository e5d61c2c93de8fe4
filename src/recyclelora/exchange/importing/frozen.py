"""The frozen weights of an imported run: those in its checkpoint, or the pretrained file that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recyclelora.exchange.importing.keys import Tensors

# Averaging weights (EMA) moves even frozen ones by rounding.
TOLERANCE = 1e-4


def fused(backbone: Mapping[str, Tensor]) -> Tensors:
    """q, k and v of each block as one fused layer; a part without the other two keeps its name."""
    whole = dict(backbone)
    for name in backbone:
        layer, _, kind = name.rpartition(".")
        parts = [f"{layer[:-1]}{part}.{kind}" for part in "qkv"]
        if layer.endswith(".qkv.q") and all(part in whole for part in parts):
            whole[f"{layer.removesuffix('.q')}.{kind}"] = torch.cat([whole.pop(part) for part in parts])
    return whole


def laid_out(tensors: Mapping[str, Tensor], patch_size: int, num_prefix: int) -> list[int] | None:
    """The image size [height, width] that a converted file's position embedding is for.

    None where the file still has another patch size, as published weights do before their conversion, or no square
    embedding: it is then fitted to the configuration's size.
    """
    kernel, positions = tensors.get("patch_embed.proj.weight"), tensors.get("pos_embed")
    if kernel is None or positions is None or positions.dim() != 3 or kernel.shape[-1] != patch_size:
        return None
    patches = positions.shape[1] - num_prefix
    side = math.isqrt(max(patches, 0))
    return [side * patch_size] * 2 if side and side * side == patches else None


def num_prefix_positions(model: Any) -> int:
    """How many entries of a timm transformer's position embedding belong to no patch."""
    return 0 if model.no_embed_class else int(model.num_prefix_tokens)


def strays(given: Mapping[str, Tensor], pretrained: Mapping[str, Tensor]) -> list[str]:
    """Names of frozen tensors that differ from the pretrained ones beyond rounding."""
    return [
        name
        for name, tensor in given.items()
        if name not in pretrained
        or tensor.shape != pretrained[name].shape
        or not torch.allclose(tensor, pretrained[name].float(), rtol=TOLERANCE, atol=1e-6)
    ]
