"""Single low-rank layers for the adapter tests, and the formula they are held against."""

import torch
from torch import nn

from recyclelora.adapters.calibration.statistics import Statistics
from recyclelora.adapters.linalg.rrqr import rrqr
from recyclelora.adapters.low_rank.factors import LayerWeight, branch_rng
from recyclelora.adapters.low_rank.inits import INITIALIZERS
from recyclelora.adapters.low_rank.layer import Branch, LowRankLinear

SCALE = 1 / 6
RECYCLE = ("rrqr_minor", "rrqr_major")


EXACT = [init for init in INITIALIZERS if init != "lora_one"]
"""Initialisations that start at the pretrained weights; LoRA-One by design does not."""


def linear(in_features=24, out_features=40, bias=True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_features, out_features, bias=bias)


def make(linear: nn.Linear, inits=RECYCLE, ranks=(4, 2), train=("a", "b"), **options) -> LowRankLinear:
    """``linear`` with branches ``main`` and ``sub``; ``train``: the factors that train."""
    k = min(linear.weight.shape)
    shown = torch.randn(200, linear.in_features, generator=torch.Generator().manual_seed(3)).double().numpy()
    gradient = torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(4)).double().numpy()
    statistics = Statistics(shown.T @ shown / len(shown), shown.mean(0), gradient)
    weight = linear.weight.detach().float().numpy()
    source = LayerWeight(linear.weight, SCALE, rrqr(weight, k, k), statistics=statistics)
    branches = {
        name: Branch(
            INITIALIZERS[init](source, rank, branch_rng(0, "l", name)),
            linear.in_features,
            train_a="a" in train,
            train_b="b" in train,
        )
        for name, init, rank in zip(("main", "sub"), inits, ranks, strict=False)
    }
    return LowRankLinear(linear, branches, scale=SCALE, **options)


def shake(layer: nn.Module, size: float = 1.0) -> None:
    """Add noise to every factor, as training would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_" in name:
                parameter += size * torch.randn(parameter.shape, generator=generator)


def formula(layer: LowRankLinear, x: torch.Tensor) -> torch.Tensor:
    """The published form: the frozen layer and two products for each branch, through plain autograd."""
    y = x @ layer.weight.T + (0 if layer.bias is None else layer.bias)
    for branch in layer.branches().values():
        y = y + layer.scale * ((x @ branch.lora_a.T) @ branch.lora_b.T)
    return y


def wanted(layer: nn.Module) -> list[nn.Parameter]:
    """The parameters that train."""
    return [parameter for parameter in layer.parameters() if parameter.requires_grad]
