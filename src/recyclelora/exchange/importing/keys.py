"""Sorting a checkpoint's tensors by name: adapter, decoder, pretrained backbone, never used, unknown.

The tables map their names to ours; ``*`` stands for the number of a block. Nothing is guessed: what no table knows is
reported, and the import refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recyclelora.models.decoders.mask2former_keys import from_mmdet

Tensors = dict[str, Tensor]
Table = Mapping[str, str]

HEAD = "decode_head."

# The transformer as Meta's DINOv2 names it, and timm after it. Where q, k and v are layers of their own (SoMA), they
# get the names that they have in an adapted fused layer here.
STEM = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
SCALES = ("ls1.gamma", "ls2.gamma")
LAYERS = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
BACKBONE: Table = (
    {name: name for name in STEM}
    | {f"blocks.*.{name}": f"blocks.*.{name}" for name in SCALES}
    | {f"blocks.*.{layer}.{kind}": f"blocks.*.{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")}
    | {f"blocks.*.attn.{p}.{kind}": f"blocks.*.attn.qkv.{p}.{kind}" for p in "qkv" for kind in ("weight", "bias")}
)

# Of no use in a segmenter: pretraining's mask (trainable in SoMA and RecycleLoRA, but never read) and the final norm.
UNUSED_BACKBONE = ("mask_token", "norm.weight", "norm.bias")
UNUSED = ("data_preprocessor.mean", "data_preprocessor.std")

CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.")
NUMBERED = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Kind:
    """How one method's released checkpoints name things.

    Attributes:
        name: of the option.
        prefix: before the names of everything in the backbone.
        adapter: their names behind the prefix -> names in the adapted transformer here.
        own_weights: the frozen weights are no longer the pretrained ones, so the file has to hold them.
        head: names of their head that mmdetection's does not have -> names in our decoder.
        layout: (our name, tensor of the adapter) -> the tensor with its values in the order that ours has.
        variants: names of the decoder that a variant of the method trains -> the option that chooses it here.
    """

    name: str
    prefix: str
    adapter: Table
    own_weights: bool = False
    head: Table = field(default_factory=dict)
    layout: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    variants: Table = field(default_factory=dict)


@dataclass(frozen=True)
class SortedTensors:
    """A checkpoint's tensors, float32, under our names.

    Attributes:
        backbone: frozen ones and trained biases, as in the transformer with ``attn.qkv.q`` where that is a layer.
        adapter: as in the adapted transformer.
        decoder: as in `Mask2Former`.
        ignored, unknown: their names; what is unknown comes with its shape.
    """

    backbone: Tensors = field(default_factory=dict)
    adapter: Tensors = field(default_factory=dict)
    decoder: Tensors = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def sort(state: Mapping[str, Tensor], kind: Kind) -> SortedTensors:
    """Every tensor of a checkpoint to its place."""
    found = SortedTensors()
    for name, tensor in state.items():
        value = tensor.to(torch.float32)
        rest = name.removeprefix(kind.prefix)
        if name.startswith(HEAD):
            rest = name.removeprefix(HEAD)
            if rest in kind.head:
                found.decoder[kind.head[rest]] = value
            elif (parts := _of_head(rest, value)) is not None:
                found.decoder.update(parts)
            else:
                found.unknown.append(_described(name, tensor))
        elif name in UNUSED or (rest != name and rest in UNUSED_BACKBONE):
            found.ignored.append(name)
        elif rest != name and (ours := translated(rest, kind.adapter)) is not None:
            found.adapter[ours] = kind.layout(ours, value)
        elif rest != name and (ours := translated(rest, BACKBONE)) is not None:
            found.backbone[ours] = value
        else:
            found.unknown.append(_described(name, tensor))
    return found


def translated(name: str, table: Table) -> str | None:
    """Our name for theirs; None where the table has none. Blocks may lie in chunks: ``blocks.<chunk>.<number>.``"""
    name = CHUNKED.sub(r"blocks.\1.", name, count=1)
    block = NUMBERED.match(name)
    ours = table.get(NUMBERED.sub("blocks.*.", name, count=1))
    return ours if ours is None or block is None else ours.replace("*", block[1], 1)


def _of_head(name: str, value: Tensor) -> Tensors | None:
    try:
        return from_mmdet({name: value})
    except ValueError:
        return None


def _described(name: str, tensor: Tensor) -> str:
    return f"{name} {tuple(tensor.shape)}"
