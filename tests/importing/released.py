"""Checkpoints in the form of the released ones, with their true names, made from a tiny model of ours.

The names are written out once more, from their side: nothing here reads the import's tables.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from recyclelora.build import build_model
from recyclelora.decoders.mask2former_keys import our_names
from recyclelora.schemas import ImportConfig
from recyclelora.segmenter import Segmenter

MMDET_NAMES = Path(__file__).parents[1] / "decoders" / "fixtures" / "mmdet_names.txt"

TINY = [
    "+backbone.model_args={embed_dim: 32, depth: 10, num_heads: 2}",
    "backbone.levels=[2,4,6,9]",
    "data.augment.crop=[64,64]",
    "data.protocol.window=64",
    "data.protocol.stride=48",
    "decoder.width=32",
    "decoder.num_heads=2",
    "decoder.encoder_layers=1",
    "decoder.encoder_width=16",
    "decoder.decoder_layers=3",
    "decoder.decoder_width=16",
    "trainer.accelerator=cpu",
]
RANKS = {
    "rein": ["adapter.num_tokens=100", "adapter.token_rank=3", "adapter.query_width=32"],
    "soma": ["adapter.main.rank=4", "adapter.alpha=4"],
    "recyclelora": ["adapter.main.rank=4", "adapter.sub.rank=2"],
}

REIN = {
    "token_a": "learnable_tokens_a", "token_b": "learnable_tokens_b", "scale": "scale",
    "token_to_feature": "mlp_token2feat", "feature_to_feature": "mlp_delta_f", "token_to_query": "transform",
    "merge_queries": "merge",
}  # fmt: skip


def built(config: ImportConfig) -> Segmenter:
    """A model of ours whose every tensor is random, as if it had been trained; W0 too."""
    config.backbone.pretrained = False
    with torch.random.fork_rng():
        torch.manual_seed(0)
        segmenter = build_model(config, None).segmenter
    config.backbone.pretrained = True
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return segmenter.eval()


def head(segmenter: Segmenter) -> dict[str, Tensor]:
    """The decoder under mmdetection's names."""
    own = segmenter.decoder.state_dict()
    state = {}
    for line in MMDET_NAMES.read_text().splitlines():
        name = line.split()[0]
        ours = our_names(name)
        if all(part in own for part in ours):
            state[f"decode_head.{name}"] = torch.cat([own[part] for part in ours])
    assert sum(tensor.numel() for tensor in state.values()) == sum(tensor.numel() for tensor in own.values())
    return state


def transformer(segmenter: Segmenter) -> dict[str, Tensor]:
    """The frozen tensors under DINOv2's names: fused layers, without what an adapter added."""
    state = segmenter.backbone.model.state_dict()
    state = {name: tensor for name, tensor in state.items() if "lora_" not in name and not name.startswith("rein.")}
    for name in [name for name in state if ".qkv.q." in name]:
        parts = [state.pop(name.replace(".q.", f".{part}.")) for part in "qkv"]
        state[name.replace(".q.", ".")] = torch.cat(parts)
    width = state["cls_token"].shape[-1]
    return state | {
        "mask_token": torch.zeros(1, width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def rein(segmenter: Segmenter, *, whole: bool = False) -> dict[str, Tensor]:
    """Tokens and head; its first query features are a layer on the lent queries, not a table."""
    state = {}
    for name, tensor in segmenter.backbone.model.rein.state_dict().items():
        part, _, kind = name.partition(".")
        state[f"backbone.reins.{REIN[part]}" + (f".{kind}" if kind else "")] = tensor
    state |= head(segmenter)
    generator = torch.Generator().manual_seed(2)
    width = state.pop("decode_head.query_feat.weight").shape[1]
    state["decode_head.querys2feat.weight"] = torch.randn(width, width, generator=generator)
    state["decode_head.querys2feat.bias"] = torch.randn(width, generator=generator)
    return state | ({f"backbone.{name}": tensor for name, tensor in transformer(segmenter).items()} if whole else {})


def first_features(state: dict[str, Tensor]) -> Tensor:
    """What Rein's head computes from its checkpoint before its first layer."""
    part = {name.rpartition("reins.")[2]: tensor for name, tensor in state.items()}
    tokens = part["learnable_tokens_a"] @ part["learnable_tokens_b"]
    queries = tokens @ part["transform.weight"].T + part["transform.bias"]
    joined = torch.cat([queries.max(0).values, queries.mean(0), queries[-1]], -1)
    query = joined @ part["merge.weight"].T + part["merge.bias"]
    return query @ state["decode_head.querys2feat.weight"].T + state["decode_head.querys2feat.bias"]


def soma(segmenter: Segmenter, *, whole: bool = False) -> dict[str, Tensor]:
    """Factors, every bias of the backbone, the mask token and the head: what its tool for releases keeps."""
    state = {}
    for name, tensor in segmenter.backbone.model.state_dict().items():
        name = re.sub(r"attn\.qkv\.([qkv])\.", r"attn.\1.", name)
        name = re.sub(r"main\.lora_([ab])$", lambda match: f"lora_{match[1].upper()}.weight", name)
        if match := re.fullmatch(r"(.*attn\.)qkv\.(weight|bias)", name):  # of the blocks without adapters
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{match[1]}{part}.{match[2]}"] = rows
        else:
            state[name] = tensor
    state |= {name: tensor for name, tensor in transformer(segmenter).items() if name.startswith(("mask", "norm."))}
    if not whole:
        state = {n: t for n, t in state.items() if "lora_" in n or n.endswith("bias") or n == "mask_token"}
    return {f"backbone.model.{name}": tensor for name, tensor in state.items()} | head(segmenter)


def recyclelora(segmenter: Segmenter) -> dict[str, Tensor]:
    """Everything, with residual weights."""
    state = {}
    for name, tensor in segmenter.backbone.model.state_dict().items():
        state[re.sub(r"(main|sub)\.lora_([ab])$", lambda m: f"lora_{m[2].upper()}_{m[1]}", name)] = tensor
    state |= {name: tensor for name, tensor in transformer(segmenter).items() if name.startswith(("mask", "norm."))}
    return {f"backbone.{name}": tensor for name, tensor in state.items()} | head(segmenter)
