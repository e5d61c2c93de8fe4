"""What one of eight processes holds of a training of DINOv3 ViT-7B, by trainer.strategy. Writes memory_plan.json.

    python benchmarks/memory_plan.py      # two minutes on one core, 6 GB of memory

Bytes of weights are those of the real model, built without memory; what a block and the decoder keep for the backward
pass is measured on one real block, and on the real decoder, with one 512 crop; the host's memory for the pivoted QR is
measured on the largest layer. What a GPU's allocator, its kernels' workspaces and the communication library take is not
in it.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from recyclelora.adapters.linalg.rrqr import decompose
from recyclelora.adapters.low_rank.layer import Branch
from recyclelora.config.build import build_backbone, build_model
from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.config.run import Config

PROCESSES, CROP, PRECISION = 8, 512, "bf16-mixed"
OPTIONS = ["backbone=dinov3_7b", "adapter=recyclelora", "decoder=mask2former", f"data.augment.crop=[{CROP},{CROP}]"]
CLASSES = 19


def configured() -> Config:
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        config: Config = typed(compose("train", [*OPTIONS, "output_dir=none", "cache=none"]))
    return config


def initial_factors(config: Config) -> dict[str, Tensor]:
    """Factors of the right shapes for every adapted layer, which need no decomposition; in memory once for all."""
    with torch.device("meta"):
        model = build_backbone(config, None).model
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    ranks = {"main": config.adapter.main.rank, "sub": config.adapter.sub.rank}
    factors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for branch, rank in ranks.items():
            factors[f"{name}.{branch}.lora_a"] = torch.arange(rank)
            factors[f"{name}.{branch}.lora_b"] = torch.ones(1).expand(layer.out_features, rank)
    return factors


def size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def kept_for_backward(module: nn.Module, run: Any) -> int:
    """Bytes of all memory that a forward keeps, without that of parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    branches = [part for part in module.modules() if isinstance(part, Branch)]
    own |= {tensor.untyped_storage().data_ptr() for part in branches for tensor in (part.initial_a, part.initial_b)}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        result = run()
    del result
    return sum(nbytes for nbytes, _ in kept.values())


def activations(segmenter: Any) -> dict[str, int]:
    """Of one image: what a block keeps, what enters it, and what the decoder keeps with its losses."""
    backbone, decoder = segmenter.backbone, segmenter.decoder
    model, grid = backbone.model, (CROP // backbone.patch_size,) * 2
    block = model.blocks[1].to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*block.parameters(), *block.buffers()):
            tensor.fill_(0.01)
    tokens = torch.randn(1, grid[0] * grid[1] + model.num_prefix_tokens, backbone.embed_dim, requires_grad=True)
    rotations = torch.randn(grid[0] * grid[1], 2 * backbone.embed_dim // block.attn.num_heads)
    found = {"block": kept_for_backward(block, lambda: block(tokens, rope=rotations)), "block_input": size([tokens])}
    features = [torch.randn(1, backbone.embed_dim, *grid, requires_grad=True) for _ in range(4)]
    labels = torch.arange(CLASSES).repeat_interleave(-(-CROP * CROP // CLASSES))[: CROP * CROP].view(1, CROP, CROP)
    found["decoder"] = kept_for_backward(decoder, lambda: decoder.losses(features, labels, 255, None, None))
    return found


def decomposing(shape: tuple[int, int], leading: int, trailing: int, answer: Any) -> None:
    weight = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    before = memory("VmRSS")
    decompose(weight, leading, trailing)
    answer.put(memory("VmHWM") - before)


def memory(key: str) -> int:
    """Bytes of this process, as Linux counts them."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


def decomposition_bytes(shape: tuple[int, int], leading: int, trailing: int) -> int:
    """What the pivoted QR of one float32 matrix takes beside it, at most: the growth of a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=decomposing, args=(shape, leading, trailing, answer))
    process.start()
    found: int = answer.get()
    process.join()
    return found


def main() -> None:
    config = configured()
    factors = initial_factors(config)
    with torch.device("meta"):
        segmenter = build_model(config, None, initial=factors, precision=PRECISION).segmenter
    segmenter.decoder.to_empty(device="cpu")
    for parameter in segmenter.decoder.parameters():
        nn.init.normal_(parameter, std=0.01)
    blocks = segmenter.backbone.model.blocks
    inside = {id(parameter) for parameter in blocks.parameters()}
    frozen = size(p for p in segmenter.parameters() if not p.requires_grad)
    trained = size(p for p in segmenter.parameters() if p.requires_grad)
    around = size(p for p in segmenter.parameters() if id(p) not in inside)
    held = size(t for b in segmenter.modules() if isinstance(b, Branch) for t in (b.initial_a, b.initial_b))
    block = max(size(part.parameters()) for part in blocks)
    layers = [m.weight.shape for m in blocks[0].modules() if getattr(m, "in_features", 0) and hasattr(m, "weight")]
    largest = max(layers, key=lambda shape: shape.numel())
    kept = activations(segmenter)
    depth = len(blocks)
    whole = {"none": depth * kept["block"], "checkpointing": depth * kept["block_input"] + kept["block"]}
    plan = {}
    for strategy, share in (("ddp", 1), ("fsdp", PROCESSES)):
        parts = {
            "frozen": frozen / share, "learning": 4 * trained / share, "buckets": trained if share == 1 else 0,
            "initial_factors": held, "gathered": 0 if share == 1 else 3 * block + around, "decoder": kept["decoder"],
        }  # fmt: skip
        totals = {way: sum(parts.values()) + value for way, value in whole.items()}
        plan[strategy] = {"parts": parts, "activations": whole, "total": totals}
    everything = size(segmenter.parameters()) - (trained - size(segmenter.decoder.parameters()))
    found = {
        "model": " ".join(OPTIONS), "processes": PROCESSES, "images_per_process": 1, "precision": PRECISION,
        "parameters": {"backbone": sum(p.numel() for p in segmenter.backbone.parameters()), "blocks": depth,
                       "block_bytes": block, "around_bytes": around, "trained_bytes": trained},
        "kept_for_backward": kept,
        "plan": plan,
        "full_states": {s: 4 * everything / n for s, n in (("ddp", 1), ("fsdp", PROCESSES))},
        "host": {"backbone": size(segmenter.backbone.parameters()), "largest_layer": list(largest),
                 "decomposing_largest_layer": decomposition_bytes(tuple(largest), 4, 32)},
    }  # fmt: skip
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
