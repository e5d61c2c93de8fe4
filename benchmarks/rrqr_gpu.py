"""Pivoted QR of all linear layers of a ViT on a GPU beside the CPU of the same machine. Writes rrqr_gpu.json.

    PYTHONPATH=src python benchmarks/rrqr_gpu.py            # ViT-L and ViT-g, a few minutes; needs torch and scipy only
    PYTHONPATH=src python benchmarks/rrqr_gpu.py --small --device cpu

The weights are random: Gaussian columns with norms spread log-uniformly over a factor e, as those of a trained ViT are.
Both sides decompose the same float32 weights in float64 and return 4 leading and 32 trailing columns of Q; the CPU uses
all its cores, one layer on each. The weights lie on the device before its clock starts, and its results are on the CPU
when it stops. `pivots_equal` counts layers with equal permutations, `largest_difference` is over all entries of Q.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from rrqr import LEADING, MODELS, TRAILING, shapes

from recyclelora.adapters.linalg.factor_cache import available_cores, factorize


def random_weights(model: str, blocks: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Float32 weights (out x in) of all layers, by name, on ``device``."""
    weights = {}
    generator = torch.Generator().manual_seed(0)
    for block in range(blocks):
        for layer, shape in shapes(model).items():
            norms = torch.exp(-torch.rand(shape[1], generator=generator))
            weights[f"blocks.{block}.{layer}"] = (torch.randn(shape, generator=generator) * norms).to(device)
    return weights


def time_device(weights: dict[str, torch.Tensor], device: torch.device, repeats: int) -> tuple[list[float], dict]:
    """Wall seconds of each repeat, and the factors."""
    seconds, found = [], {}
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        found = factorize(weights, LEADING, TRAILING, device=device)
        seconds.append(time.perf_counter() - started)
    return seconds, found


def compare(left: dict, right: dict) -> dict[str, object]:
    """How far two sets of factors agree."""
    equal = sum(np.array_equal(left[name].pivots, right[name].pivots) for name in left)
    difference = max(
        float(np.abs(getattr(left[name], field) - getattr(right[name], field)).max())
        for name in left
        for field in ("q_leading", "q_trailing")
    )
    return {"layers": len(left), "pivots_equal": equal, "largest_difference": difference}


def time_model(model: str, blocks: int, device: torch.device, repeats: int) -> dict[str, object]:
    """One ViT on the device and on the CPU."""
    weights = random_weights(model, blocks, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    resting = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    seconds, found = time_device(weights, device, repeats)
    result: dict[str, object] = {"blocks": blocks, "device_seconds": min(seconds), "device_seconds_all": seconds}
    if device.type == "cuda":
        result["device_gib"] = (torch.cuda.max_memory_allocated(device) - resting) / 2**30
    on_cpu = {name: weight.cpu() for name, weight in weights.items()}
    started = time.perf_counter()
    expected = factorize(on_cpu, LEADING, TRAILING)
    result["cpu_seconds"] = time.perf_counter() - started
    return result | compare(found, expected)


def main() -> None:
    """Time, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["L", "g"])
    parser.add_argument("--blocks", type=int, help="of each model; default: all")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    parser.add_argument("--repeats", type=int, default=3, help="on the device, after one block to warm up")
    parser.add_argument("--small", action="store_true", help="one block of ViT-S, once: does the script work?")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.small:
        options.models, options.blocks, options.repeats = ["S"], 1, 1
    device = options.device
    result: dict[str, object] = {
        "note": __doc__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu_cores": available_cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    for model in options.models:
        time_device(random_weights(model, 1, device), device, 1)  # libraries load and memory is taken
        timing = time_model(model, options.blocks or MODELS[model][1], device, options.repeats)
        result[f"vit_{model}"] = timing
        print(f"ViT-{model}: {json.dumps(timing)}", flush=True)
    if not options.small:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
