"""Cost of adapters in a training step on a GPU, eager and compiled. Writes adapter_gpu.json after every figure.

    PYTHONPATH=src python benchmarks/adapter_gpu.py            # starts no case after 7.5 minutes
    PYTHONPATH=src python benchmarks/adapter_gpu.py --small --device cpu --modes eager --output /tmp/gpu.json

Needs torch and timm; random weights. Two parts, each for a frozen backbone, the published two branches and the
project's fused layer: the linear layers of one DINOv2-L block (batch 4 at 512 pixels: 4 x 1025 tokens), and the whole
DINOv2-L at batch 4, 512 pixels, patch 16, with forward, backward down to the images and an AdamW step on whatever
trains. Modes: eager, torch.compile (of each block), torch.compile(mode="reduce-overhead") of the whole (CUDA graphs).
Precisions: bfloat16 autocast, float32 (TF32 off), and tf32 (the same with TF32 matrix products). What the time budget
leaves no room for is marked as left out; what fails is recorded with its error. `errors_vs_float64` holds the fused
layer's outputs and gradients on this device against plain autograd in float64, relative in norm.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from adapter_forms import FORMS, NORMALISED, TwoBranches, frozen_linears, fused, shapes
from torch import Tensor, nn

from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.selection import select_linears
from recyclelora.models.backbones.timm import TimmBackbone, create_backbone

COMPARED = ("frozen", "two_branches", "recyclelora")
PRECISIONS = ("bfloat16", "float32", "tf32")
MODES = ("eager", "compile", "reduce-overhead")
STEPS_BETWEEN_WAITS = 5
# Cost depends on neither, so nothing is decomposed here.
ADAPTER = LowRankConfig(main=BranchConfig("gaussian", 32), sub=BranchConfig("gaussian", 4))


class Block(nn.Module):
    """The linear layers of a block, each with an input of its own."""

    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: FORMS[form](layer) for name, layer in frozen_linears(width).items()})

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One (B, N, in) for each layer -> one (B, N, out) for each."""
        return tuple(layer(x) for layer, x in zip(self.layers.values(), inputs, strict=True))


def adapted_vit(backbone: TimmBackbone, form: str) -> TimmBackbone:
    """A copy of the frozen backbone in one form."""
    model = copy.deepcopy(backbone).requires_grad_(False)
    if form == "recyclelora":
        ADAPTER.method().apply(model.model, AdapterContext())
    elif form != "frozen":
        for name in select_linears(model.model):
            model.model.set_submodule(name, FORMS[form](model.model.get_submodule(name)))
    return model


def vit(small: bool) -> tuple[TimmBackbone, Tensor]:
    """DINOv2-L as it is trained, and a batch; or a toy."""
    name, size = ("vit_tiny_patch16_224", 64) if small else ("vit_large_patch14_dinov2", 512)
    options = {"depth": 4, "embed_dim": 64, "num_heads": 2} if small else {}
    levels = (0, 1, 2, 3) if small else None
    backbone = create_backbone(
        name, patch_size=16, image_size=(size, size), levels=levels, model_args=options, weights=None
    )
    return backbone, torch.randn(2 if small else 4, 3, size, size)


def compiled(model: nn.Module, mode: str) -> nn.Module:
    """The model as it is called. A transformer is compiled block by block, which takes one compilation for all."""
    if mode == "compile" and isinstance(model, TimmBackbone):
        for block in model.model.blocks:
            block.compile()
        return model
    if mode == "compile":
        return torch.compile(model)
    return torch.compile(model, mode=mode) if mode == "reduce-overhead" else model


class Step:
    """A training step of one model: forward, backward to the inputs, AdamW."""

    def __init__(self, model: nn.Module, inputs: list[Tensor], mode: str, precision: str) -> None:
        device = inputs[0].device
        self.inputs = [x.clone().requires_grad_() for x in inputs]
        self.call = compiled(model.to(device), mode)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        fast = device.type == "cuda"
        self.optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=fast) if trained else None
        low = precision == "bfloat16"
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16) if low else nullcontext()
        self.device = device

    def __call__(self) -> None:
        """Run the step."""
        torch.compiler.cudagraph_mark_step_begin()
        with self.autocast:
            outputs = self.call(*self.inputs)
        sum(y.float().mean() for y in outputs).backward()
        if self.optimizer is not None:
            self.optimizer.step()
            self.optimizer.zero_grad()
        for x in self.inputs:
            x.grad = None

    def measure(self, repeats: int) -> dict[str, float | None]:
        """Steps per second, milliseconds (median and least) and peak memory (GPUs only), after a warm-up."""
        for _ in range(4):
            self()
        self.wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            for _ in range(STEPS_BETWEEN_WAITS):
                self()
            self.wait()
            seconds.append((time.perf_counter() - started) / STEPS_BETWEEN_WAITS)
        peak = torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else None
        middle = statistics.median(seconds)
        return {
            "steps_per_second": 1 / middle,
            "milliseconds": 1e3 * middle,
            "least_milliseconds": 1e3 * min(seconds),
            "peak_mebibytes": peak,
        }

    def wait(self) -> None:
        """Until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def errors_vs_float64(device: torch.device, precision: str) -> dict[str, float]:
    """The fused layer on this device against the two-branch formula in float64: |difference| / |value|."""
    torch.manual_seed(0)
    layer = fused(nn.Linear(384, 1536).requires_grad_(False))
    assert isinstance(layer, LowRankLinear)
    reference = TwoBranches(nn.Linear(384, 1536)).double()
    reference.linear.weight = nn.Parameter(layer.weight.double(), requires_grad=False)
    assert layer.bias is not None
    reference.linear.bias = nn.Parameter(layer.bias.double(), requires_grad=False)
    for index, branch in enumerate(layer.branches().values()):
        reference.a[index].data, reference.b[index].data = branch.lora_a.double(), branch.lora_b.double()
    x, upstream = torch.randn(4, 65, 384), torch.randn(4, 65, 1536)
    results = []
    for module, dtype, where in ((reference, torch.float64, "cpu"), (layer.to(device), torch.float32, device)):
        given = x.to(where, dtype).requires_grad_()
        low = precision == "bfloat16" and dtype == torch.float32
        with torch.autocast(device.type, dtype=torch.bfloat16) if low else nullcontext():
            y = module(given)
        factors = [[*reference.a, *reference.b], _factors(layer)][module is layer]
        grads = torch.autograd.grad(y, [given, *factors], upstream.to(where, y.dtype))
        results.append([value.detach().double().cpu() for value in (y, *grads)])
    names = ("y", "grad_x", "grad_a_main", "grad_a_sub", "grad_b_main", "grad_b_sub")
    return {
        name: float((found - wanted).norm() / wanted.norm())
        for name, wanted, found in zip(names, *results, strict=True)
    }


def _factors(layer: LowRankLinear) -> list[Tensor]:
    parts = list(layer.branches().values())
    return [part.lora_a for part in parts] + [part.lora_b for part in parts]


def use(precision: str) -> None:
    """Let float32 products use TF32 or not."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")


def cases(modes: list[str], precisions: list[str]) -> Iterator[tuple[str, str, str, str]]:
    """(part, precision, mode, form), the most telling first."""
    for part in ("linears", "vit"):
        for precision in precisions:
            for mode in modes:
                for form in COMPARED:
                    yield part, precision, mode, form


class Models:
    """What both parts start from."""

    def __init__(self, small: bool, device: torch.device) -> None:
        self.small, self.device = small, device
        self.width = 64 if small else 1024
        self.backbone, self.images = vit(small)

    def step(self, part: str, precision: str, mode: str, form: str) -> Step:
        """The step of one case."""
        if part == "vit":
            return Step(adapted_vit(self.backbone, form), [self.images.to(self.device)], mode, precision)
        tokens = 17 if self.small else 1025
        inputs = [torch.randn(4, tokens, size, device=self.device) for size, _ in shapes(self.width).values()]
        if precision == "bfloat16":  # what follows a norm is float32
            names = shapes(self.width)
            inputs = [x if name in NORMALISED else x.bfloat16() for name, x in zip(names, inputs, strict=True)]
        return Step(Block(self.width, form), inputs, mode, precision)


def run(case: tuple[str, str, str, str], models: Models, repeats: int) -> dict[str, object]:
    """Figures of one case, or its error."""
    _, precision, _, _ = case
    use(precision)
    torch.compiler.reset()
    try:
        started = time.perf_counter()
        step = models.step(*case)
        found: dict[str, object] = {**step.measure(repeats)}
        return {**found, "seconds_in_all": time.perf_counter() - started}
    except Exception as error:  # a compiler or the memory may fail in one case; the others go on
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        if models.device.type == "cuda":
            torch.cuda.empty_cache()


def machine(device: torch.device) -> dict[str, object]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a toy, to try the script")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--repeats", type=int, default=10, help="of five steps each")
    parser.add_argument("--budget", type=float, default=450, help="seconds after which no further case starts")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    started = time.perf_counter()
    device = torch.device(options.device)
    models = Models(options.small, device)
    result: dict[str, dict[str, object]] = {"machine": machine(device), "errors_vs_float64": {}}
    for precision in options.precisions:
        use(precision)
        result["errors_vs_float64"][precision] = errors_vs_float64(device, precision)
    baselines: dict[tuple[str, ...], float] = {}
    for case in cases(options.modes, options.precisions):
        late = time.perf_counter() - started > options.budget
        found = {"error": "left out: the time budget was spent"} if late else run(case, models, options.repeats)
        if "error" not in found:
            baselines.setdefault(case[:3], found["milliseconds"])
            found["ratio"] = found["milliseconds"] / baselines[case[:3]]
        result["/".join(case)] = found
        print(f"{'/'.join(case):44}", _line(found), flush=True)
        options.output.write_text(json.dumps({**result, "note": __doc__}, indent=2) + "\n")


def _line(found: dict[str, object]) -> str:
    if "error" in found:
        return str(found["error"])
    return "{milliseconds:9.2f} ms  {ratio:6.3f} of frozen  {peak_mebibytes} MiB".format(**found)


if __name__ == "__main__":
    main()
