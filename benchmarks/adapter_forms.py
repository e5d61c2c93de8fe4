"""The linear layers of a transformer block in every form whose cost is compared; the benchmarks of steps import this.

A form turns the frozen layers of a block into adapted ones. Another method is one more entry in `FORMS`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.adalora import AdaLoRA
from recyclelora.adapters.config import (
    AdaLoraConfig,
    DeloraConfig,
    DoraConfig,
    HiraConfig,
    KasaConfig,
    LoraXsConfig,
    OploraConfig,
    SvftConfig,
    VeraConfig,
)
from recyclelora.adapters.dora import DoRA
from recyclelora.adapters.fixed_directions import SVFT, LoRAXS, OPLoRA
from recyclelora.adapters.low_rank.inits import Factors
from recyclelora.adapters.low_rank.layer import Branch, LowRankLinear
from recyclelora.adapters.method import AdapterContext, Method
from recyclelora.adapters.products.delora import DeLoRA
from recyclelora.adapters.products.hira import HiRA
from recyclelora.adapters.products.kasa import KaSA
from recyclelora.adapters.tokens.rein import ReinTokens
from recyclelora.adapters.tokens.spectral import CausalTokens, SetTokens
from recyclelora.adapters.vera import VeRA

RANKS = {"main": 32, "sub": 4}
SCALE = 1 / 36
NORMALISED = ("qkv", "fc1")  # their inputs follow a norm: float32 under autocast
Linears = dict[str, nn.Linear]
Form = Callable[[nn.Linear], nn.Module]


def shapes(width: int) -> dict[str, tuple[int, int]]:
    """(in, out) of the four linear layers of a block."""
    return {"qkv": (width, 3 * width), "proj": (width, width), "fc1": (width, 4 * width), "fc2": (4 * width, width)}


def frozen_linears(width: int, seed: int = 0) -> Linears:
    """Random frozen layers of one block."""
    torch.manual_seed(seed)
    return {name: nn.Linear(*sizes).requires_grad_(False) for name, sizes in shapes(width).items()}


class Adapted(nn.Module):
    """A frozen layer with the factors A_i (rank, in) and B_i (out, rank), for forms that are not the project's own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        factors = random_factors(linear)
        self.a = nn.ParameterList([factor.a for factor in factors.values()])
        self.b = nn.ParameterList([factor.b for factor in factors.values()])


class TwoBranches(Adapted):
    """As published: each branch is a product of its own, added to the frozen layer's output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        y = self.linear(x)
        for a, b in zip(self.a, self.b, strict=True):
            y = y + F.linear(F.linear(x, a), b) * SCALE
        return y


class Concatenated(Adapted):
    """All branches as one pair of products, through plain autograd."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        a, b = torch.cat([*self.a]), torch.cat([*self.b], dim=1) * SCALE
        return self.linear(x) + F.linear(F.linear(x, a), b)


def random_factors(linear: nn.Linear) -> dict[str, Factors]:
    """Factors of both branches; their values do not matter for the cost."""
    sizes = {name: (linear.out_features, rank, linear.in_features) for name, rank in RANKS.items()}
    return {
        name: Factors(b=torch.randn(o, r) / o**0.5, a=torch.randn(r, i) / i**0.5) for name, (o, r, i) in sizes.items()
    }


def fused(linear: nn.Linear) -> nn.Module:
    """The project's low-rank layer."""
    branches = {name: Branch(factors, linear.in_features) for name, factors in random_factors(linear).items()}
    return LowRankLinear(linear, branches, scale=SCALE)


def one_branch(rank: int, *, train_b: bool = True) -> Form:
    """The project's low-rank layer with one branch of ``rank`` and W0 as it is."""

    def build(linear: nn.Linear) -> nn.Module:
        width, out = linear.in_features, linear.out_features
        factors = Factors(b=torch.randn(out, rank) / out**0.5, a=torch.randn(rank, width) / width**0.5)
        branch = Branch(factors, width, train_b=train_b)
        return LowRankLinear(linear, {"main": branch}, scale=1.0, residual=False)

    return build


def through(method: Method) -> Form:
    """A method applied to one layer, as it would be to a transformer's."""

    def build(linear: nn.Linear) -> nn.Module:
        model = nn.Module()
        model.blocks = nn.ModuleList([nn.ModuleDict({"layer": linear})])
        method.apply(model, AdapterContext(max_steps=1000))
        return model.get_submodule("blocks.0.layer")

    return build


class Full(nn.Module):
    """The layer itself, trained."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = copy.deepcopy(linear).requires_grad_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        return self.linear(x)


class Refined(nn.Module):
    """Tokens refine what a block puts out: here behind fc2; a block's other layers stay as they are."""

    def __init__(self, linear: nn.Linear, kind: type[ReinTokens], maps: bool) -> None:
        super().__init__()
        self.linear, self.maps = linear, maps
        self.tokens = kind(
            1, linear.out_features, num_tokens=100, token_rank=16, patch_size=16, scale=0.001, query_width=None, seed=0
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, in) -> (tokens, out); as maps of 32 x 32 patches, or of one row where there are fewer."""
        y = self.linear(x)
        if not self.maps:
            return self.tokens.refine(0, y)
        height, width = (32, 32) if len(y) >= 1024 else (1, len(y))
        patches = len(y) // (height * width) * height * width
        refined = self.tokens.refine(0, y[:patches].reshape(-1, height, width, y.shape[-1]))
        return torch.cat([refined.reshape(patches, -1), y[patches:]])


def refined(kind: type[ReinTokens], *, maps: bool = False) -> Form:
    """The tokens' share of a block."""
    return lambda linear: Refined(linear, kind, maps) if linear.in_features == 4 * linear.out_features else linear


# What every other form is compared with comes first. Layers of PiSSA, MiLoRA, OLoRA, SoMA and LoRA cost the same.
FORMS: dict[str, Form] = {
    "frozen": lambda linear: linear,
    "two_branches": TwoBranches,
    "concatenated": Concatenated,
    "recyclelora": fused,
    "lora_16": one_branch(16),
    "mica_16": one_branch(16, train_b=False),
    "dora_16": through(DoRA(DoraConfig(rank=16, alpha=16))),
    "vera_256": through(VeRA(VeraConfig(rank=256))),
    "lora_xs_16": through(LoRAXS(LoraXsConfig(rank=16))),
    "svft": through(SVFT(SvftConfig())),
    "oplora_16": through(OPLoRA(OploraConfig(rank=16, protected=16))),
    "kasa_16": through(KaSA(KasaConfig(rank=16))),
    "delora_16": through(DeLoRA(DeloraConfig(rank=16))),
    "hira_16": through(HiRA(HiraConfig(rank=16))),
    "adalora_24": through(AdaLoRA(AdaLoraConfig(init_rank=24, target_rank=16, alpha=24))),
    "rein": refined(ReinTokens),
    "set": refined(SetTokens, maps=True),
    "causal_tune": refined(CausalTokens, maps=True),
    "full": Full,
}
