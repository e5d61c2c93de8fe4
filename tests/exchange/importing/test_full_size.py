"""Names and shapes of the published models, DINOv2-L and its Mask2Former, on the meta device: no memory, no weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from recyclelora.config.build import BACKBONE
from recyclelora.config.commands import ImportConfig
from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.config.run import Config
from recyclelora.exchange.importing.conversion import KINDS, expected_state
from recyclelora.exchange.importing.frozen import fused
from recyclelora.exchange.importing.keys import Tensors, sort

MMDET_NAMES = Path(__file__).parents[2] / "models" / "decoders" / "fixtures" / "mmdet_names.txt"
D, DEPTH = 1024, 24
LAYERS = {"attn.proj": (D, D), "mlp.fc1": (4 * D, D), "mlp.fc2": (D, 4 * D)}
FUSED = {"attn.qkv": (3 * D, D), **LAYERS}
SPLIT = {"attn.q": (D, D), "attn.k": (D, D), "attn.v": (D, D), **LAYERS}


def transformer(prefix: str, layers: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """DINOv2-L converted to patch 16 and 512 x 512 pixels."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, D), "pos_embed": (1, 1025, D), "mask_token": (1, D), "norm.weight": (D,), "norm.bias": (D,),
        "patch_embed.proj.weight": (D, 3, 16, 16), "patch_embed.proj.bias": (D,),
    }  # fmt: skip
    for block in range(DEPTH):
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (D,)
        for layer, (out, width) in layers.items():
            shapes[f"blocks.{block}.{layer}.weight"] = (out, width)
            shapes[f"blocks.{block}.{layer}.bias"] = (out,)
    return {prefix + name: shape for name, shape in shapes.items()}


def head() -> dict[str, tuple[int, ...]]:
    lines = [line.split() for line in MMDET_NAMES.read_text().splitlines()]
    return {f"decode_head.{name}": tuple(map(int, shape)) for name, *shape in lines}


def rein() -> dict[str, tuple[int, ...]]:
    tokens = {
        "learnable_tokens_a": (24, 100, 16), "learnable_tokens_b": (24, 16, D), "scale": (),
        "mlp_token2feat.weight": (D, D), "mlp_token2feat.bias": (D,),
        "mlp_delta_f.weight": (D, D), "mlp_delta_f.bias": (D,),
        "transform.weight": (256, D), "transform.bias": (256,), "merge.weight": (256, 768), "merge.bias": (256,),
    }  # fmt: skip
    shapes = head() | {f"backbone.reins.{name}": shape for name, shape in tokens.items()}
    del shapes["decode_head.query_embed.weight"], shapes["decode_head.query_feat.weight"]
    return shapes | {"decode_head.querys2feat.weight": (256, 256), "decode_head.querys2feat.bias": (256,)}


def soma() -> dict[str, tuple[int, ...]]:
    shapes = head() | transformer("backbone.model.", SPLIT)
    for block in range(8, DEPTH):
        for layer, (out, width) in SPLIT.items():
            shapes[f"backbone.model.blocks.{block}.{layer}.lora_A.weight"] = (16, width)
            shapes[f"backbone.model.blocks.{block}.{layer}.lora_B.weight"] = (out, 16)
    return shapes


def recyclelora() -> dict[str, tuple[int, ...]]:
    shapes = head() | transformer("backbone.", FUSED)
    for block in range(DEPTH):
        for layer, (out, width) in FUSED.items():
            for branch, rank in (("main", 32), ("sub", 4)):
                shapes[f"backbone.blocks.{block}.{layer}.lora_A_{branch}"] = (rank, width)
                shapes[f"backbone.blocks.{block}.{layer}.lora_B_{branch}"] = (out, rank)
    return shapes


def expected(kind: str) -> Tensors:
    """What the published configuration of a kind trains."""
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        config: ImportConfig = typed(compose("import_checkpoint", [f"kind={kind}", "checkpoint=none"]))
    return expected_state(Config(**{name: getattr(config, name) for name in Config.__dataclass_fields__}))[0]


@pytest.mark.parametrize(
    ("kind", "released", "parameters"),
    [("rein", rein, 2_990_081), ("soma", soma, 4_866_048), ("recyclelora", recyclelora, 14_155_776)],
)
def test_every_published_tensor_has_its_place(kind, released, parameters):
    state = {name: torch.empty(shape, device="meta") for name, shape in released().items()}
    found = sort(state, KINDS[kind])
    assert not found.unknown
    ours = {BACKBONE + name: tensor.shape for name, tensor in (found.backbone | found.adapter).items()}
    ours |= {f"decoder.{name}": tensor.shape for name, tensor in found.decoder.items()}
    wanted = {name: tensor.shape for name, tensor in expected(kind).items()}
    assert {name: ours.get(name) for name in wanted} == wanted
    assert sum(shape.numel() for name, shape in wanted.items() if name.startswith(BACKBONE)) == parameters
    assert {f"decoder.{name}" for name in found.decoder} | {BACKBONE + name for name in found.adapter} <= wanted.keys()
    frozen = {name: tuple(tensor.shape) for name, tensor in fused(found.backbone).items()}
    unused = ("mask_token", "norm.weight", "norm.bias")
    whole = {name: shape for name, shape in transformer("", FUSED).items() if name not in unused}
    assert frozen == ({} if kind == "rein" else whole)
