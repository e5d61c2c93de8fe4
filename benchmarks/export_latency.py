"""Latency of the exported backbone beside the untouched one: merged adapters cost nothing.

python benchmarks/export_latency.py            # ViT-S, B, L at 512x512, about 10 minutes; writes export_latency.json
python benchmarks/export_latency.py --small    # ViT-S at 224x224 in half a minute; writes nothing

Weights are random. The exported model is what plain timm loads from the folder that ``format=timm`` writes. Forward
passes of both (and of the adapted model before the export) alternate, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from hydra import compose, initialize_config_dir

from recyclelora.config.build import build_model
from recyclelora.config.commands import ExportConfig
from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.evaluation.load import TrainedModel, single_evaluator
from recyclelora.exchange.exports import timm as timm_export
from recyclelora.exchange.exports.source import Source, features
from recyclelora.models.backbones.timm import build_timm


def moved(backbone: str, side: int) -> Source:
    """RecycleLoRA on random weights, its factors moved as training would move them."""
    register_schemas()
    options = [f"backbone={backbone}", "backbone.pretrained=false", f"backbone.image_size=[{side},{side}]"]
    with initialize_config_dir(str(home() / "conf")):
        config = typed(compose("train", [*options, f"data.augment.crop=[{side},{side}]", "data.root=."]))
    segmenter = build_model(config, None).segmenter.eval()
    for parameter in segmenter.backbone.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    segmenter.requires_grad_(False)
    evaluator = single_evaluator(config, torch.device("cpu"), "32-true")
    return Source.of(TrainedModel(Path("run"), config, segmenter, evaluator, 0), "last")


def seconds(models: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time of one call of each, again and again, in alternating order; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name in list(models) if repeat % 2 else reversed(list(models)):
            began = time.perf_counter()
            models[name]()
            if repeat:
                times[name].append(time.perf_counter() - began)
    return times


def measure(backbone: str, side: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of every model and the ratios to the untouched one."""
    source = moved(backbone, side)
    untouched = build_timm(source.backbone.model, 0, source.timm_arguments).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        timm_export.write(source, Path(folder), ExportConfig(format="timm")).verify()
        exported = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().requires_grad_(False)
    images, levels = torch.randn(1, 3, side, side), source.adapted.levels
    models = {"untouched": untouched, "exported": exported, "adapted": source.adapted.model}
    times = seconds({name: lambda m=model: features(m, levels, images) for name, model in models.items()}, repeats)
    result = {f"{name}_ms": round(1e3 * statistics.median(values), 2) for name, values in times.items()}
    for name in ("exported", "adapted"):
        pairs = [a / b for a, b in zip(times[name], times["untouched"], strict=True)]
        result[f"{name}_ratio"] = round(statistics.median(pairs), 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    torch.manual_seed(0)
    names = ["dinov2_small"] if options.small else ["dinov2_small", "dinov2_base", "dinov2_large"]
    side = 224 if options.small else 512
    measured = {}
    for name in names:
        measured[name] = measure(name, side, options.repeats)
        print(f"{name} at {side}x{side}:", json.dumps(measured[name]))
    if options.small:
        return
    result = {
        "what": f"one {side}x{side} image, float32, random weights, RecycleLoRA 32+4; ratio: median of paired ratios",
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "system": platform.machine()},
        "repeats": options.repeats,
        "measured": measured,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
