"""One training step of the published experiment: this project beside the published form, in one process.

    PYTHONPATH=src python benchmarks/train_step.py                 # DINOv2-L, Mask2Former, 512 crop, batch 4: a GPU
    PYTHONPATH=src python benchmarks/train_step.py --small         # DINOv2-S, 128 x 256, batch 2: a CPU, two minutes
    PYTHONPATH=src python benchmarks/train_step.py --tiny --output /tmp/step.json      # a toy, to try the script

Published form: float32, the two branches of every layer one after the other as the formula is written, eager. Ours: the
fused branch, float32 and bfloat16 autocast, eager and compiled. Needs torch, timm, transformers and no Hydra; weights
are random, which changes no time. Writes train_step-<device>.json after every figure: steps per second, peak memory,
share of the device's arithmetic (FLOPs of the frozen model's forward and backward, torch's counter, over a measured
matrix product), where the time of a step goes, and on a GPU the largest batch that fits. A form that fails is recorded
with its error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from adapter_gpu import adapted_vit
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from recyclelora.models.backbones.timm import create_backbone
from recyclelora.models.decoders.config import Mask2FormerDecoderConfig, MaskLossConfig
from recyclelora.models.segmenter import Segmenter

NUM_CLASSES = 19


TOY = {"depth": 4, "embed_dim": 64, "num_heads": 2}
"""In the place of vit_tiny_patch16_224's sizes."""
TOY_DECODER = Mask2FormerDecoderConfig(
    width=32, num_queries=20, encoder_layers=1, encoder_width=32, decoder_layers=1, decoder_width=32,
    loss=MaskLossConfig(num_points=64),
)  # fmt: skip


def build(name: str, size: tuple[int, int], device: str, *, published: bool) -> Segmenter:
    toy = "tiny" in name
    frozen = create_backbone(
        name, patch_size=16, image_size=size, levels=(0, 1, 2, 3) if toy else None, model_args=TOY if toy else {},
        weights=None, seed=0,
    )  # fmt: skip
    backbone = adapted_vit(frozen, "two_branches" if published else "recyclelora")
    decoder = (TOY_DECODER if toy else Mask2FormerDecoderConfig()).build([backbone.embed_dim] * 4, NUM_CLASSES)
    return Segmenter(backbone, decoder, mean=(0.5,) * 3, std=(0.2,) * 3, ignore_index=255).to(device).train()


def batch(size: tuple[int, int], count: int, device: str) -> tuple[Tensor, Tensor]:
    """Images of noise and labels of rectangles with eight classes each, as a crop of a street has."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    coarse = torch.randint(0, 8, (count, 1, 8, 8), generator=generator).float()
    return images.to(device), F.interpolate(coarse, size=size)[:, 0].to(torch.uint8).to(device)


class Step:
    """Forward, loss, backward and optimizer step of one form."""

    def __init__(self, segmenter: Segmenter, data: tuple[Tensor, Tensor], *, bf16: bool, compiled: bool) -> None:
        self.segmenter, self.data, self.bf16 = segmenter, data, bf16
        trained = [p for p in segmenter.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        if compiled:
            segmenter.backbone.compile()

    def __call__(self) -> None:
        """One step."""
        device = self.data[0].device.type
        with torch.autocast(device, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            losses = self.segmenter(*self.data)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self) -> float:
        """Seconds of one step."""
        synchronise(self.data[0].device)
        began = time.perf_counter()
        self()
        synchronise(self.data[0].device)
        return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


FORMS = {
    "published: float32, two branches, eager": {"published": True, "bf16": False, "compiled": False},
    "ours: float32, eager": {"published": False, "bf16": False, "compiled": False},
    "ours: bfloat16, eager": {"published": False, "bf16": True, "compiled": False},
    "ours: bfloat16, compiled": {"published": False, "bf16": True, "compiled": True},
}


def measure(name: str, size: tuple[int, int], count: int, device: str, repeats: int) -> dict[str, dict]:
    """Seconds per step of every form, repeats interleaved where all fit together, and peak memory of each alone."""
    data = batch(size, count, device)
    steps, table = {}, {}
    for form, options in FORMS.items():
        if options["compiled"] and "tiny" in name:
            continue
        try:
            steps[form], table[form] = warmed(name, size, data, options)
        except Exception as error:  # a compiler or the memory may fail in one form; the others go on
            table[form] = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
    seconds: dict[str, list[float]] = {form: [] for form in steps}
    for _ in range(repeats):
        for form, step in steps.items():
            seconds[form].append(step.timed())
    baseline = statistics.median(seconds.get(next(iter(FORMS)), [float("nan")]))
    for form, values in seconds.items():
        middle = statistics.median(values)
        table[form] |= {
            "seconds_per_step": round(middle, 4),
            "steps_per_second": round(1 / middle, 3),
            "faster_than_published": round(baseline / middle, 2),
        }
    return table


def warmed(
    name: str, size: tuple[int, int], data: tuple[Tensor, Tensor], options: dict[str, bool]
) -> tuple[Step, dict]:
    """The step of one form after three steps, and on a GPU its peak memory."""
    device = data[0].device.type
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    segmenter = build(name, size, device, published=options["published"])
    step = Step(segmenter, data, bf16=options["bf16"], compiled=options["compiled"])
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    synchronise(data[0].device)
    if device != "cuda":
        return step, {}
    return step, {"peak_memory_gib": round((torch.cuda.max_memory_allocated() - before) / 2**30, 2)}


def flops(name: str, size: tuple[int, int], count: int, device: str) -> int:
    """Floating-point operations of one step in its published form."""
    segmenter = build(name, size, device, published=True)
    with FlopCounterMode(display=False) as counter:
        losses = segmenter(*batch(size, count, device))
        torch.stack(list(losses.values())).sum().backward()
    return counter.get_total_flops()


def matrix_product_rate(device: str, dtype: torch.dtype, n: int) -> float:
    """Floating-point operations per second of a large matrix product: what the device gives at best here."""
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        synchronise(a.device)
        began = time.perf_counter()
        _ = a @ b
        synchronise(a.device)
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def where_the_time_goes(name: str, size: tuple[int, int], count: int, device: str) -> dict[str, float]:
    """Share of the ten most expensive operations in a step of ours (bfloat16, eager), and of the model's parts."""
    segmenter = build(name, size, device, published=False)
    step = Step(segmenter, batch(size, count, device), bf16=True, compiled=False)
    step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
    key = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: getattr(event, key), reverse=True)
    total = sum(getattr(event, key) for event in events)
    return {event.key[:80]: round(getattr(event, key) / total, 3) for event in events[:10]}


def largest_batch(name: str, size: tuple[int, int]) -> int:
    """Images of the largest batch that trains on this GPU in bfloat16, to a multiple of 4."""
    fits = 0
    for count in range(8, 257, 8):
        try:
            step = Step(
                build(name, size, "cuda", published=False), batch(size, count, "cuda"), bf16=True, compiled=False
            )
            step()
            torch.cuda.synchronize()
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            step = None
            torch.cuda.empty_cache()
        fits = count
    return fits


SIZES = {
    "full": ("vit_large_patch14_dinov2", (512, 512), 4),
    "small": ("vit_small_patch14_dinov2", (128, 256), 2),
    "tiny": ("vit_tiny_patch16_224", (32, 64), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--small", action="store_const", dest="size", const="small", help="DINOv2-S, 128 x 256, batch 2"
    )
    parser.add_argument("--tiny", action="store_const", dest="size", const="tiny", help="a toy, to try the script")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path, help="by default train_step-<device>.json beside this file")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name, size, count = SIZES[options.size or "full"]
    if device == "cuda":
        torch.set_float32_matmul_precision("highest")  # float32 means float32 in the published form
    path = options.output or Path(__file__).parent / f"train_step-{device}.json"
    output: dict[str, object] = {
        "what": f"{name} at patch 16, RecycleLoRA 32 + 4, Mask2Former, crop {size[0]} x {size[1]}, batch {count}",
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }

    def add(**figures: object) -> None:
        output.update(figures)
        path.write_text(json.dumps(output, indent=2) + "\n")
        print(json.dumps(figures, indent=2), flush=True)

    forms = measure(name, size, count, device, options.repeats)
    add(forms=forms)
    add(profile_of_ours_bfloat16=where_the_time_goes(name, size, count, device))
    operations = flops(name, size, count, device)
    n = {"full": 8192, "small": 2048, "tiny": 256}[options.size or "full"]
    rates = {str(d).removeprefix("torch."): matrix_product_rate(device, d, n) for d in (torch.float32, torch.bfloat16)}
    fastest = max(
        (form.get("steps_per_second", 0.0) for label, form in forms.items() if "bfloat16" in label), default=0
    )
    add(
        tflop_per_step=round(operations / 1e12, 3),
        matrix_product_tflop_per_second={d: round(rate / 1e12, 3) for d, rate in rates.items()},
        utilisation_of_ours=round(operations * fastest / rates["bfloat16"], 3),
    )
    if device == "cuda" and options.size is None:
        add(largest_batch=largest_batch(name, size))


if __name__ == "__main__":
    main()
