"""How much of the first training step arrives in the outputs of the adapted layers under bfloat16 autocast?

    python benchmarks/first_update.py      # writes first_update.json; DINOv2-S, a minute on 2 cores

Every adapter takes one AdamW step of the published rate, 1e-4 times its multipliers, on a random regression of the
features. Of each adapted layer, with its frozen weight set to zero, the outputs after the step minus those before are
compared with the same in float64, on the tokens that the layer really gets:

- noise: norm of what differs, relative to the norm of the exact change;
- noise_of_weight: the same on random tokens, that is of the change of the weight itself, in every direction alike;
- arrives: the exact change's own share in what was found (1: all of it, on average).

The rounding of the frozen part and of the activations themselves, which every method has, is left out. `fold` and
`subtract` are the two forms of `adapter.mixed_precision`; methods that start with B A = 0 have one form only.
"""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from recyclelora.adapters.config import LowRankConfig
from recyclelora.adapters.dora import DoRALinear
from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.method import AdapterContext
from recyclelora.adapters.replacing import AdaptedLinear
from recyclelora.config.build import build_backbone, locate_weights
from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.config.run import Config
from recyclelora.models.backbones.timm import TimmBackbone

ADAPTERS = (
    "recyclelora", "recyclelora_short", "recyclelora_values", "pissa", "milora", "soma", "olora", "orthogonal",
    "lora", "mica", "soma_released", "vera", "adalora",
)  # fmt: skip
RATE = 1e-4
SIZE = 224
PUBLISHED = Path(__file__).with_suffix(".json")


def configured(adapter: str, form: str | None) -> Config:
    """The shipped configuration with an adapter."""
    overrides = [f"adapter={adapter}", "backbone=dinov2_small", f"data.augment.crop=[{SIZE},{SIZE}]"]
    overrides += [] if form is None else [f"adapter.mixed_precision={form}"]
    with initialize_config_dir(str(home() / "conf")):
        config: Config = typed(compose("train", overrides))
    return config


def step(config: Config, backbone: TimmBackbone, images: Tensor) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """The adapted transformer before and after one step, and the tokens that each adapted layer got."""
    adapted = config.adapter.method().apply(backbone.model, AdapterContext(autocast=True))
    tokens: dict[str, Tensor] = {}
    for name, layer in layers(backbone.model):
        layer.register_forward_pre_hook(lambda module, given, name=name: tokens.update({name: given[0].detach()}))
    target = [torch.randn_like(level) for level in backbone(images)]
    before = copy.deepcopy(backbone.model)
    loss = sum((level - wanted).square().mean() for level, wanted in zip(backbone(images), target, strict=True))
    loss.backward()
    rules = adapted.rules
    groups = [
        {"params": [p], "lr": RATE * rules[name].lr_mult}
        for name, p in backbone.model.named_parameters() if p.requires_grad
    ]  # fmt: skip
    torch.optim.AdamW(groups, weight_decay=0.0).step()
    return before, backbone.model, tokens


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Adapted layers whose frozen weight adds to what the adapter does."""
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear | AdaptedLinear) and not isinstance(module, DoRALinear):
            yield name, module


@torch.no_grad()
def alone(layer: nn.Module) -> nn.Module:
    """A copy without frozen weight and bias."""
    layer = copy.deepcopy(layer)
    layer._forward_pre_hooks.clear()
    layer.weight.zero_()
    layer.bias = None
    return layer


@torch.no_grad()
def arrived(before: nn.Module, after: nn.Module, tokens: Tensor) -> tuple[float, float]:
    """(noise, share that arrives) of a layer's change."""
    with torch.autocast("cpu", torch.bfloat16):
        found = after(tokens).double() - before(tokens).double()
    exact = copy.deepcopy(after).double()(tokens.double()) - copy.deepcopy(before).double()(tokens.double())
    return float((found - exact).norm() / exact.norm()), float((found * exact).sum() / exact.square().sum())


def measure(adapter: str, form: str | None) -> dict[str, float]:
    """Means over all adapted layers."""
    config = configured(adapter, form)
    backbone = build_backbone(config, locate_weights(config.backbone))
    torch.manual_seed(0)
    before, after, tokens = step(config, backbone, torch.randn(2, 3, SIZE, SIZE))
    rows = []
    for name, layer in layers(after):
        pair, given = (alone(before.get_submodule(name)), alone(layer)), tokens[name]
        rows.append((*arrived(*pair, given), arrived(*pair, torch.randn_like(given))[0]))
    noise, share, of_weight = (sum(values) / len(rows) for values in zip(*rows, strict=True))
    found = {"noise": noise, "noise_of_weight": of_weight, "arrives": share}
    return {name: round(value, 4) for name, value in found.items()} | {"layers": len(rows)}


def main() -> None:
    """Measure all, print and write."""
    register_schemas()
    table: dict[str, dict[str, dict[str, float]]] = {}
    for adapter in ADAPTERS:
        options = configured(adapter, None).adapter
        residual = isinstance(options, LowRankConfig) and options.residual
        for form in ("fold", "subtract") if residual else (None,):
            row = table.setdefault(adapter, {})[form or "only form"] = measure(adapter, form)
            print(adapter, form or "", row, flush=True)
    about = {
        "what": "first AdamW step of rate 1e-4 under bfloat16 autocast, means over adapted layers, DINOv2-S",
        "machine": {"python": platform.python_version(), "torch": torch.__version__, "system": platform.machine()},
    }
    PUBLISHED.write_text(json.dumps({**about, "table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
