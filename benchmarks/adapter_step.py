"""Cost of adapters in a training step on a CPU: forward and backward of a block's linears. Writes adapter_step.json.

    .venv/bin/python benchmarks/adapter_step.py                          # about half an hour on one core
    .venv/bin/python benchmarks/adapter_step.py --width 64 --tokens 33 --repeats 2 --output /tmp/step.json

The four linear layers of a DINOv2-L block (qkv, proj, fc1, fc2), 1029 tokens (one 512 crop) and 4116 (a batch of four),
gradients with respect to the inputs included, float32 and bfloat16 autocast (where the inputs of qkv and fc1, which
follow a norm, are float32). Every form runs in turns on the same layer, input and thread; CPU seconds, summed over
the four layers from the medians (and minima) over the repeats. Saved activations are what autograd keeps between
forward and backward besides parameters; copies of weights in the autocast dtype are among them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from adapter_forms import FORMS, NORMALISED, shapes
from torch import nn

PRECISIONS = {"float32": False, "bfloat16": True}


class Layer:
    """One linear layer in every form, with its input and the gradient of its output."""

    def __init__(self, name: str, sizes: tuple[int, int], tokens: int, autocast: bool, forms: list[str]) -> None:
        torch.manual_seed(0)
        linear = nn.Linear(*sizes).requires_grad_(False)
        self.autocast = autocast
        self.forms = {form: FORMS[form](linear) for form in forms}
        low = torch.bfloat16 if autocast else torch.float32
        self.x = torch.randn(tokens, sizes[0], dtype=torch.float32 if name in NORMALISED else low).requires_grad_()
        self.grad = torch.randn(tokens, sizes[1], dtype=low)

    def step(self, form: str) -> None:
        """Forward and backward."""
        module = self.forms[form]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            y = module(self.x)
        y.backward(self.grad)
        self.x.grad = None
        module.zero_grad()

    def seconds(self, form: str) -> float:
        """CPU seconds of a step."""
        started = time.process_time()
        self.step(form)
        return time.process_time() - started

    def saved_mebibytes(self, form: str) -> float:
        """Size of the distinct tensors that autograd keeps, parameters excepted."""
        parameters = {parameter.untyped_storage().data_ptr() for parameter in self.forms[form].parameters()}
        sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.step(form)
        return sum(sizes.values()) / 2**20


def measure(width: int, tokens: int, autocast: bool, repeats: int, forms: list[str]) -> dict[str, dict[str, object]]:
    """Form -> seconds, ratios to the first form, saved mebibytes."""
    median, least, saved = ({form: dict[str, float]() for form in forms} for _ in range(3))
    for name, sizes in shapes(width).items():
        layer = Layer(name, sizes, tokens, autocast, forms)
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for form in forms:
            saved[form][name] = layer.saved_mebibytes(form)  # and a warm-up
        for _ in range(repeats):
            for form in forms:
                seconds[form].append(layer.seconds(form))
        for form in forms:
            median[form][name], least[form][name] = statistics.median(seconds[form]), min(seconds[form])
    return {form: _summary(form, forms[0], median, least, saved) for form in forms}


Figures = Mapping[str, Mapping[str, float]]


def _summary(form: str, baseline: str, median: Figures, least: Figures, saved: Figures) -> dict[str, object]:
    return {
        "cpu_seconds": sum(median[form].values()),
        "ratio": sum(median[form].values()) / sum(median[baseline].values()),
        "ratio_of_minima": sum(least[form].values()) / sum(least[baseline].values()),
        "ratio_per_layer": {name: value / median[baseline][name] for name, value in median[form].items()},
        "saved_mebibytes": sum(saved[form].values()),
    }


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024, help="of the block (1024: DINOv2-L)")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1029, 4116])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="the first is compared with")
    parser.add_argument("--repeats", type=int, default=30, help="for the smallest number of tokens; in proportion else")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, object] = {"machine": machine(), "width": options.width, "note": __doc__}
    for precision in options.precisions:
        for tokens in options.tokens:
            repeats = max(2, options.repeats * min(options.tokens) // tokens)
            figures = measure(options.width, tokens, PRECISIONS[precision], repeats, options.forms)
            result[f"{precision}_{tokens}_tokens"] = {"repeats": repeats, **figures}
            print(f"{precision}, {tokens} tokens: seconds, ratio to {options.forms[0]}, saved activations")
            for form, found in figures.items():
                print(
                    f"  {form:16} {found['cpu_seconds']:8.3f} s  {found['ratio']:6.3f} "
                    f"(of minima {found['ratio_of_minima']:.3f})  {found['saved_mebibytes']:7.1f} MiB",
                    flush=True,
                )
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
