"""The checks for authors: our own parts pass them, and broken ones are caught by what they broke."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from recyclelora.testing import check_adapter, check_decoder, check_loss
from torch import nn

from recyclelora.adapters.config import (
    AdaLoraConfig,
    AdaptFormerConfig,
    CausalTuneConfig,
    DeloraConfig,
    DoraConfig,
    FrozenConfig,
    FullConfig,
    HiraConfig,
    KasaConfig,
    NormsConfig,
    ReinConfig,
    SetConfig,
    VeraConfig,
    VptConfig,
)
from recyclelora.adapters.layers import LayersConfig
from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.method import Adapted
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod
from recyclelora.adapters.state import ParameterRule, uniform_rules
from recyclelora.models.decoders.config import (
    EomtDecoderConfig,
    FpnDecoderConfig,
    LinearDecoderConfig,
    Mask2FormerDecoderConfig,
    MaskLossConfig,
    SegformerDecoderConfig,
)
from recyclelora.models.losses.config import GecoConfig, OrthogonalityConfig, StyleConsistencyConfig

SUB = BranchConfig("rrqr_major", 2)
ADAPTERS = {
    "frozen": FrozenConfig(),
    "full": FullConfig(),
    "lora": LowRankConfig(main=BranchConfig("kaiming", 4), residual=False),
    "recyclelora": LowRankConfig(main=BranchConfig("rrqr_minor", 4), sub=SUB, split_qkv=True, train_bias=True),
    "mica": LowRankConfig(main=BranchConfig("svd_minor_left", 4, train_b=False)),
    "recyclelora_data": LowRankConfig(main=BranchConfig("rrqr_minor_data", 4), sub=BranchConfig("rrqr_major_data", 2)),
    "eva": LowRankConfig(main=BranchConfig("eva", 4), residual=False),
    "dora": DoraConfig(rank=4),
    "vera": VeraConfig(rank=8),
    "delora": DeloraConfig(rank=4, strength=1.0),
    "hira": HiraConfig(rank=4),
    "norms": NormsConfig(),
    "adaptformer": AdaptFormerConfig(width=8),
    "adalora": AdaLoraConfig(init_rank=4, target_rank=2, delta_t=1),
}
LOSS = MaskLossConfig(num_points=64)
DECODERS = {
    "linear": LinearDecoderConfig(dropout=0.1),
    "segformer": SegformerDecoderConfig(width=32),
    "fpn": FpnDecoderConfig(width=32, head_width=32, pyramid="learned"),
    "eomt": EomtDecoderConfig(width=32, num_queries=8, num_heads=2, num_blocks=1, loss=LOSS),
    "mask2former": Mask2FormerDecoderConfig(
        width=32, num_queries=8, num_heads=2, encoder_layers=1, encoder_width=32, decoder_layers=1, decoder_width=32,
        loss=LOSS,
    ),
}  # fmt: skip


ALIKE = {"delora", "hira"}
"""Layers of the same make as DoRA's and VeRA's."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in ADAPTERS]
)
def test_our_adapters_keep_what_they_promise(name):
    check_adapter(ADAPTERS[name])


@pytest.mark.parametrize(
    "options", [VptConfig(num_prompts=3), pytest.param(KasaConfig(rank=4), marks=pytest.mark.slow)]
)
def test_prompts_are_seen_from_the_start_and_so_is_a_tail_that_was_dropped(options):
    check_adapter(options, tolerance=None)
    with pytest.raises(AssertionError):
        check_adapter(options)


@pytest.mark.parametrize("kind", [ReinConfig, SetConfig, CausalTuneConfig])
@pytest.mark.parametrize("link", [False, True])
def test_reins_start_is_a_scale_above_zero(kind, link):
    options = kind(num_tokens=10, token_rank=4, query_width=16)
    check_adapter(options, tolerance=5e-3, has_queries=link)
    with pytest.raises(AssertionError):
        check_adapter(options, has_queries=link)


@pytest.mark.parametrize("name", DECODERS)
def test_our_decoders_keep_what_they_promise(name):
    check_decoder(DECODERS[name])


@pytest.mark.parametrize(
    "options",
    [
        GecoConfig(tokens=20), GecoConfig(relative_to="rms", compares="scores"), StyleConsistencyConfig(),
        OrthogonalityConfig(), OrthogonalityConfig(weight=0.0),
    ],
    ids=lambda options: options.kind,
)  # fmt: skip
def test_our_losses_keep_what_they_promise(options):
    check_loss(options)


class AddedLinear(nn.Linear):
    """A learned shift beside the bias, of which merging does not know."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.requires_grad_(False)
        self.shift = nn.Parameter(torch.zeros(linear.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.shift


class ShiftedLinear(AdaptedLinear):
    """The same shift, which `AdaptedLinear.merged` leaves out, since it is no part of the weight."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.shift = nn.Parameter(torch.zeros(linear.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias) + self.shift

    def merged_weight(self) -> torch.Tensor:
        return self.weight.double()


def adapt(model: nn.Module, layer: type[nn.Module]) -> dict[str, ParameterRule]:
    model.requires_grad_(False)
    for block in model.blocks:
        block.mlp.fc1 = layer(block.mlp.fc1)
    return uniform_rules(model, 1.0, 0.0, "all")


@dataclass
class Broken:
    fault: str
    kind: str = "broken"
    name: str = "broken"

    def method(self) -> Broken:
        return self

    def apply(self, model: nn.Module, context: object) -> Adapted:
        model.requires_grad_(self.fault != "frozen")
        rules = uniform_rules(model, 1.0, 0.0, "all")
        if self.fault == "rule":
            rules.popitem()
        if self.fault == "start":
            nn.init.zeros_(model.blocks[0].attn.proj.weight)
        if self.fault == "random":
            model.extra = nn.Parameter(torch.zeros(3))
            model.register_buffer("drawn", torch.rand(3), persistent=False)
            model.register_forward_hook(lambda *_: None)
            rules["extra"] = rules["norm.weight"]
        if self.fault in ("unmerged", "bias"):
            rules = adapt(model, ShiftedLinear if self.fault == "bias" else AddedLinear)
        return Adapted(rules)

    def build(self, channels: list[int], num_classes: int) -> nn.Module:
        decoder = LinearDecoderConfig().build(channels, num_classes)
        if self.fault == "undecayed":
            decoder.undecayed = lambda: {"norms.9.weight"}
        if self.fault == "idle":
            decoder.idle = nn.Linear(2, 2)
        if self.fault == "classes":
            decoder.classifier = nn.Conv2d(sum(channels), 2 * num_classes, kernel_size=1)
        return decoder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("rule", "trainable and rules differ"),
        ("start", "not close"),
        ("random", "these get no gradient: .'extra'"),
        ("unmerged", "merging leaves or lacks .*shift"),
        ("bias", "merged it computes otherwise"),
    ],
)
def test_broken_adapters_are_caught(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_adapter(Broken(fault))


@dataclass
class ScaledConfig(LayersConfig):
    kind: str = "scaled"
    name: str = "scaled"

    def method(self) -> ReplacingMethod:
        return Scaled(self)


class Scaled(ReplacingMethod):
    def layer(self, linear: nn.Linear, name: str, seed: int) -> AdaptedLinear:
        return ScaledLinear(linear)


class ScaledLinear(AdaptedLinear):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.gamma = nn.Parameter(torch.ones(linear.out_features, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * self.gamma, self.bias)

    def merged_weight(self) -> torch.Tensor:
        return self.weight.double() * self.gamma


def test_a_method_of_layers_needs_no_rank():
    check_adapter(ScaledConfig())


@pytest.mark.parametrize(
    ("fault", "message"),
    [("undecayed", "undecayed.* names what is no parameter"), ("idle", "idle.weight"), ("classes", "shape")],
)
def test_broken_decoders_are_caught(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_decoder(Broken(fault))


@dataclass
class Loss:
    result: object

    def build(self, channels: list[int], num_classes: int) -> object:
        return self.result


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (lambda inputs: {}, AssertionError, "no loss"),
        (lambda inputs: {"smooth": inputs.scores.mean()}, ValueError, "'smooth': it must begin with loss_"),
        (lambda inputs: {"loss_x": inputs.scores}, AssertionError, "no finite scalar"),
        (lambda inputs: {"loss_x": inputs.images.mean()}, AssertionError, "no gradient"),
        (lambda inputs: {"loss_x": inputs.features[0].mean() / (inputs.labels != 255).sum()}, AssertionError, "finite"),
    ],
)
def test_broken_losses_are_caught(result, error, message):
    with pytest.raises(error, match=message):
        check_loss(Loss(result))
