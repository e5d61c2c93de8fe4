"""Filling a timm vision transformer with pretrained tensors: names, sizes, and nothing missing or left over.

timm's own checkpoint filters translate the names of other publishers (DINOv2 and DINOv3, CLIP, EVA, SAM). They would
also resample, by timm's rule; they are therefore shown a model whose sizes agree with the file, and the resampling of
this project follows.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from recyclelora.models.backbones.layouts import own_layout
from recyclelora.models.backbones.resampling import (
    Resampling,
    resize_patch_kernel,
    resize_position_grid,
    resize_position_tokens,
    resize_relative_positions,
)
from recyclelora.system.errors import some

# What a file may hold and a backbone need not have: everything after the last block, and pretraining's mask.
UNUSED = re.compile(r"(head|norm|fc_norm|attn_pool|neck|lm_head)\.|mask_token$")
BLOCK = re.compile(r"blocks\.(\d+)\.")
SHOWN = 5


def load_weights(
    model: Any, weights: Mapping[str, Tensor], resampling: Resampling, *, mapped: bool = False
) -> None:  # fmt: skip
    """Fill every tensor of a pruned timm transformer from `weights`; see `fitted_weights`.

    ``mapped``: take the given tensors themselves instead of copies, where type and layout allow it. Those of a
    safetensors file lie in the file's pages, which all processes of a machine share until they write to them.
    """
    fitted = fitted_weights(model, weights, resampling)
    if mapped:
        own = model.state_dict()
        fitted = {name: tensor.to(own[name].dtype).contiguous() for name, tensor in fitted.items()}
    model.load_state_dict(fitted, strict=True, assign=mapped)


def fitted_weights(model: Any, weights: Mapping[str, Tensor], resampling: Resampling) -> dict[str, Tensor]:
    """`weights` under the names of a pruned timm transformer, resampled to its patch size and grid.

    Args:
        model: timm's VisionTransformer, Eva or VisionTransformerSAM without head and unused blocks, mostly without
            norm; may be on the meta device.
        weights: tensors as read from a file, under timm's names or the publisher's.
        resampling: how patch kernel and position embedding are fitted.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; the message names them.
    """
    named = timm_names(model, weights)
    _refuse_variants(model, named)
    own, depth = model.state_dict(), len(model.blocks)
    used = {name: tensor for name, tensor in named.items() if name in own or not _is_unused(name, depth)}
    fitted = {name: _fit(model, name, tensor, resampling) for name, tensor in used.items()}
    _check(own, fitted)
    return fitted


def load_available(model: Any, weights: Mapping[str, Tensor], resampling: Resampling) -> set[str]:
    """Fill what `weights` hold of a whole timm transformer, as `load_weights` fills a pruned one.

    Returns:
        names of the tensors that they do not hold, or in another shape; these stay as they are.
    """
    own = model.state_dict()
    named = {name: tensor for name, tensor in timm_names(model, weights).items() if name in own}
    fitted = {name: _fit(model, name, tensor, resampling) for name, tensor in named.items()}
    found = {name: tensor for name, tensor in fitted.items() if tensor.shape == own[name].shape}
    model.load_state_dict(found, strict=False)
    return set(own) - set(found)


def resampled_names(model: nn.Module) -> list[str]:
    """Names of the tensors of `model` that depend on its patch size or grid."""
    return [name for name in model.state_dict() if name.rpartition(".attn.")[2] in FITS]


def timm_names(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` under timm's names for `model`; sizes unchanged.

    Raises:
        ValueError: they are known to be something else; see `layouts.own_layout`.
    """
    given = own_layout(weights)
    if "register_tokens" in given:  # DINOv2's, whose names timm knows by the mask that its own files hold
        given.setdefault("mask_token", given["register_tokens"][:, 0])
    kernels = (tensor for tensor in given.values() if tensor.dim() == 4 and tensor.shape[1] == 3)
    kernel = next(kernels, model.patch_embed.proj.weight)
    # All that timm's filters ask of a model, answered so that they rename and never resample.
    stand_in = SimpleNamespace(
        patch_embed=SimpleNamespace(proj=SimpleNamespace(weight=kernel)),
        pos_embed=None,
        head=None,
        get_parameter=model.get_parameter,
    )
    rename = sys.modules[type(model).__module__].checkpoint_filter_fn
    with contextlib.redirect_stdout(None):  # timm prints one line per bias that DINOv3's own files hold in vain
        named: dict[str, Tensor] = rename(dict(given), stand_in)
    _refuse_lost_biases(given, named)
    return named


def _refuse_lost_biases(given: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> None:
    """timm drops DINOv3's q, k and v biases where its model has none, which is right only where they are zeros."""
    for name, bias in given.items():
        kept = {name, name.replace("qkv.bias", "q_bias"), name.replace("qkv.bias", "q_proj.bias")}
        if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.bias", name) and not kept & named.keys() and bias.any():
            raise ValueError(f"{name} is not zero, but this model has no such bias: take timm's variant with qkvb")


def _refuse_variants(model: Any, named: Mapping[str, Tensor]) -> None:
    """Refuse the weights of another size or variant of the same family by what it is.

    Raises:
        ValueError: they have another width, fewer blocks, or registers where the model has none or the reverse.
    """
    kernel = named.get("patch_embed.proj.weight")
    depth = len({match[1] for match in map(BLOCK.match, named) if match})
    if kernel is None or not depth:
        return  # foreign: the check of names says so
    width, own = int(model.embed_dim), getattr(model, "reg_token", None)
    registers, theirs = (0 if tokens is None else tokens.shape[1] for tokens in (own, named.get("reg_token")))
    differences = []
    if kernel.shape[0] != width:
        differences.append(f"width {kernel.shape[0]} instead of {width}")
    if depth < len(model.blocks):
        differences.append(f"{depth} blocks instead of {len(model.blocks)}")
    if theirs != registers:
        differences.append(f"{theirs or 'no'} register tokens instead of {registers or 'none'}")
    if differences:
        hint = "" if theirs == registers else "; backbones with registers end in _reg"
        raise ValueError(f"these weights are of another variant than the model: {', '.join(differences)}{hint}")


def _is_unused(name: str, depth: int) -> bool:
    block = BLOCK.match(name)
    return bool(UNUSED.match(name)) or (block is not None and int(block[1]) >= depth)


def _fit(model: Any, name: str, tensor: Tensor, resampling: Resampling) -> Tensor:
    fit = FITS.get(name.rpartition(".attn.")[2])
    return tensor if fit is None or name not in model.state_dict() else fit(model, name, tensor, resampling)


def _fit_kernel(model: Any, name: str, kernel: Tensor, resampling: Resampling) -> Tensor:
    return resize_patch_kernel(kernel, tuple(model.patch_embed.patch_size), resampling)


def _fit_positions(model: Any, name: str, positions: Tensor, resampling: Resampling) -> Tensor:
    size = tuple(model.patch_embed.grid_size)
    if positions.dim() == 4:  # SAM keeps its grid as (1, h, w, D)
        return resize_position_grid(positions, size, resampling)
    num_prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    return resize_position_tokens(positions, size, num_prefix, resampling)


def _fit_relative(model: Any, name: str, bias: Tensor, resampling: Resampling) -> Tensor:
    return resize_relative_positions(bias, model.get_parameter(name).shape[0])


FITS: dict[str, Callable[[Any, str, Tensor, Resampling], Tensor]] = {
    "patch_embed.proj.weight": _fit_kernel,
    "pos_embed": _fit_positions,
    "rel_pos_h": _fit_relative,
    "rel_pos_w": _fit_relative,
}


def _check(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless `given` has exactly the names and shapes of `expected`."""
    both = expected.keys() & given.keys()
    problems = {
        "missing": expected.keys() - given.keys(),
        "unexpected": given.keys() - expected.keys(),
        "of another shape": {name for name in both if expected[name].shape != given[name].shape},
    }
    found = [f"{kind}: {some(sorted(names), SHOWN)}" for kind, names in problems.items() if names]
    if found:
        raise ValueError(f"these weights do not belong to this model; {'; '.join(found)}")
