"""Seconds of one training step (forward, loss, backward) and parameters of every decoder, features given.

python benchmarks/decoders.py            # writes decoders.json: DINOv2-L's width, batch 4, crop 512; on a GPU if any
python benchmarks/decoders.py --small    # DINOv2-S's width, batch 2, crop 128x256; prints only

"mask2former by transformers" is the same decoder through transformers' own forward pass and loss. "eomt" includes the
four blocks of the backbone that it runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerLoss,
    Mask2FormerPixelDecoder,
    Mask2FormerTransformerModule,
)

from recyclelora.models.backbones.inner import InnerBlocks
from recyclelora.models.backbones.timm import create_backbone
from recyclelora.models.decoders.config import DECODERS, EomtDecoderConfig
from recyclelora.models.decoders.mask2former import Mask2Former

CLASSES, PATCH, IGNORED = 19, 16, 255
LossOf = Callable[[list[Tensor], Tensor], Tensor]


def ours(decoder: nn.Module) -> LossOf:
    return lambda features, labels: torch.stack(list(decoder.losses(features, labels, IGNORED).values())).sum()


def through_transformers(decoder: Mask2Former) -> LossOf:
    criterion = Mask2FormerLoss(Mask2FormerConfig(num_labels=CLASSES), {})

    def loss(features: list[Tensor], labels: Tensor) -> Tensor:
        pixels = decoder.pixel_decoder
        decoded = Mask2FormerPixelDecoder.forward(pixels, pixels.pyramid(features))
        out = Mask2FormerTransformerModule.forward(
            decoder.transformer, decoded.multi_scale_features, decoded.mask_features
        )
        classes = [decoder.class_predictor(state.transpose(0, 1)) for state in out.intermediate_hidden_states]
        present = [image.unique() for image in labels]
        targets = [(image[None] == ids[:, None, None]).float() for image, ids in zip(labels, present, strict=True)]
        outputs = [
            {"masks_queries_logits": m.float(), "class_queries_logits": c.float()}
            for m, c in zip(out.masks_queries_logits, classes, strict=True)
        ]
        criterion.to(labels.device)
        losses = criterion(*outputs[-1].values(), targets, present, outputs[:-1])
        weights = {"cross_entropy": 2.0, "mask": 5.0, "dice": 5.0}
        return sum(value * next(w for k, w in weights.items() if k in name) for name, value in losses.items())

    return loss


def built(width: int, device: str) -> Iterator[tuple[str, nn.Module]]:
    """Every decoder at its defaults, by the name of its option."""
    for kind, schema in DECODERS.items():
        yield {"eomt": "query_tokens"}.get(kind, kind), schema().build([width] * 4, CLASSES).to(device)
    backbone = create_backbone(
        "vit_large_patch14_dinov2", patch_size=PATCH, image_size=(512, 512), levels=None, weights=None,
        model_args={"embed_dim": width, "num_heads": width // 64, "depth": 5}, final_norm=True,
    ).to(device)  # fmt: skip
    yield "eomt", EomtDecoderConfig(inside=True).build([width] * 4, CLASSES, InnerBlocks(backbone, 4)).to(device)


def measure(loss_of: LossOf, features: list[Tensor], labels: Tensor, repeats: int, autocast: bool) -> dict[str, float]:
    """Median seconds of a step after two warm-up steps, and the peak memory on a GPU."""
    cuda = labels.is_cuda
    seconds = []
    for _ in range(repeats + 2):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext():
            loss = loss_of(features, labels)
        loss.backward()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    result = {"seconds": round(statistics.median(seconds[2:]), 4)}
    return result | ({"peak_memory_mb": torch.cuda.max_memory_allocated() // 2**20} if cuda else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int)
    options = parser.parse_args()
    width, batch, crop, repeats = (384, 2, (128, 256), 1) if options.small else (1024, 4, (512, 512), 10)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    patches = (crop[0] // PATCH, crop[1] // PATCH)
    features = [torch.randn(batch, width, *patches, device=device, requires_grad=True) for _ in range(4)]
    # twelve classes to an image
    labels = torch.randint(0, 12, (batch, *patches), device=device)
    labels = labels.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    rows: dict[str, dict[str, float]] = {}
    for kind, decoder in built(width, device):
        ways = {kind: ours(decoder)}
        if isinstance(decoder, Mask2Former):
            ways["mask2former by transformers"] = through_transformers(decoder)
        for name, loss_of in ways.items():
            parameters = sum(p.numel() for p in decoder.parameters())
            given = features[-1:] if kind == "eomt" else features  # what enters its blocks, for the levels
            steps = measure(loss_of, given, labels, options.repeats or repeats, autocast=device == "cuda")
            rows[name] = {"parameters": parameters} | steps
            print(f"{name:28} {parameters / 1e6:6.2f} M  {rows[name]['seconds']:8.3f} s", flush=True)
    result = {
        "what": f"one training step of the decoder alone, batch {batch}, crop {crop[0]}x{crop[1]}, features of {width}",
        "machine": {
            "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
            "precision": "bf16 autocast" if device == "cuda" else "float32",
            "torch": torch.__version__, "system": platform.machine(),
        },
        "decoders": rows,
    }  # fmt: skip
    if not options.small:
        Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
