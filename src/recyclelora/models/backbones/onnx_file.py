"""Weights of a plain vision transformer out of an ONNX graph, which is read, never executed.

Exporters keep the names of norms, biases, LayerScale and patch kernel, and lose others: matrices of linear layers are
anonymous and stored transposed, so each is found through the bias that is added to its product; equal tensors share one
name; a class token becomes a constant that is put in front of the patches, and a position embedding one or two, by
whether it is cut apart to be resampled. What the names mean is not known here (`layouts`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recyclelora.models.backbones.layouts import HF_DINOV2, patch_kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Arrays = dict[str, "NDArray[Any]"]
TOKENS = ("cls_token", "reg_token", "pos_embed")
"""timm's names of what no layer holds."""


def read_onnx(path: Path) -> dict[str, Tensor]:
    """The tensors of the transformer in a graph, under the names of the model that was exported, in its precision.

    Raises:
        ImportError: the package onnx is missing.
        ValueError: there is no transformer in it, or not one alone.
    """
    import torch

    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as missing:
        raise ImportError("the package onnx is needed for it: pip install onnx") from missing

    graph = onnx.load(path).graph
    arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]]
    kernel, names = _stem(graph, arrays)
    named = {name: array for name, array in arrays.items() if _belongs(name, array, kernel, names)}
    named |= {name: array for name, array in _linear_weights(graph, arrays).items() if name.startswith(names["prefix"])}
    width = arrays[kernel].shape[0]
    for token, array in _tokens(graph, arrays, named, width).items():
        named.setdefault(names[token], array)
    return {name: torch.from_numpy(array.copy()) for name, array in named.items()}


def _stem(graph: Any, arrays: Arrays) -> tuple[str, dict[str, str]]:
    """The patch kernel's name, and what its model calls tokens and position embedding, by timm's names for them."""
    convolutions = [node.input[1] for node in graph.node if node.op_type == "Conv" and node.input[1] in arrays]
    kernels = patch_kernels(convolutions)
    if len(kernels) != 1:
        raise ValueError(
            f"holds {len(kernels)} patch embeddings under the names of timm or Hugging Face; one transformer is wanted"
        )
    ((kernel, known_by),) = kernels.items()
    prefix = kernel.removesuffix(known_by)
    theirs = HF_DINOV2 if known_by in HF_DINOV2.values() else {}
    return kernel, {"prefix": prefix} | {token: prefix + theirs.get(token, token) for token in TOKENS}


def _belongs(name: str, array: NDArray[Any], kernel: str, names: Mapping[str, str]) -> bool:
    """Whether a tensor is one of the model's by its name: exporters call their own ``onnx::Concat_7`` or ``val_7``."""
    said = "." in name.removeprefix(names["prefix"]) or name in names.values()
    return name.startswith(names["prefix"]) and said and ":" not in name and array.dtype.kind == "f"


def _linear_weights(graph: Any, arrays: Arrays) -> Arrays:
    """``<layer>.weight`` (out, in) for each MatMul whose product is added to a tensor ``<layer>.bias``."""
    factors = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    weights = {}
    for node in graph.node:
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        product = next((name for name in node.input if name in factors), None)
        if node.op_type == "Add" and bias and product and factors[product] in arrays:
            weights[bias.removesuffix("bias") + "weight"] = arrays[factors[product]].T
    return weights


def _tokens(graph: Any, arrays: Arrays, named: Arrays, width: int) -> Arrays:
    """Anonymous constants (1, n, width): tokens in front of the patches, and what is added to all of them.

    Where the class token has its name and nothing is added, the position embedding was cut apart: what stands in front
    is its first row, and a square number of rows its grid.
    """
    import numpy as np

    anonymous = {
        name: array for name, array in arrays.items()
        if name not in named and array.ndim == 3 and array.shape[0] == 1 and array.shape[2] == width
    }  # fmt: skip
    found: Arrays = {}
    for node in graph.node:
        for name in anonymous.keys() & set(node.input):
            if node.op_type == "Concat" and name != node.input[-1]:
                array = anonymous.pop(name)
                found["cls_token" if array.shape[1] == 1 else "reg_token"] = array
            elif node.op_type == "Add":
                found["pos_embed"] = anonymous.pop(name)
    grids = [array for array in anonymous.values() if math.isqrt(array.shape[1]) ** 2 == array.shape[1]]
    if "pos_embed" not in found and len(grids) == 1:
        front = [found.pop("cls_token")] if "cls_token" in found else []
        found["pos_embed"] = np.concatenate([*front, *grids], axis=1)
    return found
