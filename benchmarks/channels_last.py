"""Is a decoder with convolutions faster with its weights channels-last? CPU seconds of a training step, in turns.

python benchmarks/channels_last.py        # writes channels_last.json; one thread, a minute

Features come as the backbone gives them, channels first.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from recyclelora.models.decoders.config import DECODERS

WIDTH, BATCH, CROP, PATCH, CLASSES, IGNORED = 384, 2, 256, 16, 19, 255
CONVOLUTIONAL = ("linear", "segformer", "fpn", "upernet", "dpt")


def step(decoder: nn.Module, features: list[Tensor], labels: Tensor) -> float:
    """CPU seconds of forward, loss and backward."""
    began = time.process_time()
    torch.stack(list(decoder.losses(features, labels, IGNORED).values())).sum().backward()
    decoder.zero_grad()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=6)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    side = CROP // PATCH
    features = [torch.randn(BATCH, WIDTH, side, side, requires_grad=True) for _ in range(4)]
    labels = torch.randint(0, 12, (BATCH, side, side)).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    rows: dict[str, dict[str, float]] = {}
    for kind in CONVOLUTIONAL:
        first = DECODERS[kind]().build([WIDTH] * 4, CLASSES).train()
        last = copy.deepcopy(first).to(memory_format=torch.channels_last)
        ways = {"channels_first": first, "channels_last": last}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(turns + 1):
            for name, decoder in ways.items():
                seconds[name].append(step(decoder, features, labels))
        best = {name: min(values[1:]) for name, values in seconds.items()}
        rows[kind] = {name: round(value, 3) for name, value in best.items()}
        rows[kind]["ratio"] = round(best["channels_first"] / best["channels_last"], 2)
        print(f"{kind:12} {rows[kind]}", flush=True)
    result = {
        "what": f"CPU seconds of a decoder's step, best of turns; batch {BATCH}, crop {CROP}, features of {WIDTH}",
        "machine": {"torch": torch.__version__, "system": platform.machine(), "load": round(os.getloadavg()[0], 1)},
        "decoders": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
