"""What a run saves of its adapters, how it comes back, and the merged model that an export needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from recyclelora.adapters.low_rank import LowRankLinear, SplitQKV
from recyclelora.adapters.spec import AdapterSpec


@dataclass(frozen=True)
class ParameterRule:
    """How an optimizer treats one parameter.

    Attributes:
        lr_mult: relative to the base learning rate.
        weight_decay: None takes the optimizer's own.
        group: a name for all parameters of this rule, such as ``main.lora_a``.
    """

    lr_mult: float
    weight_decay: float | None
    group: str


def low_rank_layers(model: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """Name and module of every low-rank layer."""
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            yield name, module


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies (CPU) of every A and B and every trained bias, by parameter name; the same in train and eval mode."""
    return {name: parameter.detach().cpu().clone() for name, parameter in _saved_parameters(model).items()}


def initial_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """B0 and A0 under the names of the parameters they started; a 0/1 A0 as int64 positions of its ones (rank,)."""
    state = {}
    for name, layer in low_rank_layers(model):
        for branch_name, branch in layer.branches().items():
            a = branch.initial.a if branch.initial.a is not None else branch.initial.a_index
            assert a is not None
            state[f"{name}.{branch_name}.lora_a"] = a.clone()
            state[f"{name}.{branch_name}.lora_b"] = branch.initial.b.clone()
    return state


@torch.no_grad()
def load_adapter_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Write a state from `adapter_state` back.

    Raises:
        ValueError: when names or shapes differ; nothing is loaded then.
    """
    parameters = _saved_parameters(model)
    missing, unexpected = sorted(parameters.keys() - state.keys()), sorted(state.keys() - parameters.keys())
    if missing or unexpected:
        raise ValueError(f"adapter state does not fit: {_some('missing', missing)}; {_some('unexpected', unexpected)}")
    for name, parameter in parameters.items():
        if state[name].shape != parameter.shape:
            found, expected = tuple(state[name].shape), tuple(parameter.shape)
            raise ValueError(f"adapter state does not fit: {name} is {found} in the state, {expected} in the model")
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


def merge(model: nn.Module) -> nn.Module:
    """A deep copy of ``model`` with an ordinary ``nn.Linear`` for every low-rank layer; ``model`` is untouched."""
    memo: dict[int, object] = {}
    for _, module in model.named_modules():
        if isinstance(module, LowRankLinear | SplitQKV):
            memo[id(module)] = module.merged()  # deepcopy then takes this for the copy of the layer
    return copy.deepcopy(model, memo)


def parameter_rules(model: nn.Module, spec: AdapterSpec) -> dict[str, ParameterRule]:
    """Rule of every trainable adapter parameter by name; trained biases follow the main branch."""
    rules = {}
    for name, layer in low_rank_layers(model):
        for branch_name, chosen in spec.branches.items():
            prefix = f"{name}.{branch_name}"
            for factor, lr_mult in (("lora_a", chosen.lr_mult), ("lora_b", chosen.lr_mult * chosen.lr_mult_b)):
                group = f"{branch_name}.{factor}"
                rules[f"{prefix}.{factor}"] = ParameterRule(lr_mult, chosen.weight_decay, group)
        if layer.bias is not None:
            rules[f"{name}.bias"] = ParameterRule(spec.main.lr_mult, spec.main.weight_decay, "bias")
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: rule for name, rule in rules.items() if name in trainable}


def _saved_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every A and B, frozen or not, and the biases that train."""
    saved = {}
    for layer_name, layer in low_rank_layers(model):
        for branch_name, branch in layer.branches().items():
            saved[f"{layer_name}.{branch_name}.lora_a"] = branch.lora_a
            saved[f"{layer_name}.{branch_name}.lora_b"] = branch.lora_b
        if layer.bias is not None and layer.bias.requires_grad:
            saved[f"{layer_name}.bias"] = layer.bias
    return saved


def _some(label: str, names: list[str]) -> str:
    """``missing: a, b, ... (96 in all)``."""
    shown = ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")
    return f"{label}: {shown or 'none'}"
