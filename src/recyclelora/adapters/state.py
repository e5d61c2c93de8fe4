"""What a run saves of its adapters, how it comes back, and the merged model that an export needs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.adapters.low_rank.spec import AdapterSpec


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


class Unmergeable(nn.Module):
    """Base of a module that a method adds to a model and that no weight of the model can take in.

    Attributes:
        method: the name by which an export refuses it.
    """

    method: ClassVar[str]


def low_rank_layers(model: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """Name and module of every low-rank layer."""
    for name, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            yield name, module


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies (CPU) of what an adapter adds to a pretrained model, by name; the same in train and eval mode.

    These are the parameters that train, every A and B even where it is frozen, and persistent buffers (the vision
    transformers have none of their own).
    """
    return {name: tensor.detach().cpu().clone() for name, tensor in _saved(model).items()}


def initial_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """B0 and A0 under the names of the parameters they started; a 0/1 A0 as int64 positions of its ones (rank,).

    A branch with B0 = 0 whose A trains is left out, and so is everything outside the low-rank family: what they start
    from follows from the seed and the weights.
    """
    state = {}
    for name, layer in low_rank_layers(model):
        for branch_name, branch in layer.branches().items():
            if branch.lora_a.requires_grad and not branch.initial.b.any():
                continue
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
    own = _saved(model)
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"adapter state does not fit: {_some('missing', missing)}; {_some('unexpected', unexpected)}")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            found, expected = tuple(state[name].shape), tuple(tensor.shape)
            raise ValueError(f"adapter state does not fit: {name} is {found} in the state, {expected} in the model")
    for name, tensor in own.items():
        tensor.copy_(state[name])


def merge(model: nn.Module) -> nn.Module:
    """A deep copy of ``model`` in which every layer that offers ``merged()`` is what that returns; ``model`` is kept.

    The result is the architecture of the pretrained model with other weights.

    Raises:
        ValueError: naming the method, when it cannot be expressed by the weights of the model.
    """
    refused = unmergeable(model)
    if refused is not None:
        raise ValueError(f"{refused} cannot be merged: what it computes is no weight of the backbone")
    memo: dict[int, object] = {}
    for module in model.modules():
        merged = getattr(module, "merged", None)
        if callable(merged):
            memo[id(module)] = merged()  # deepcopy then takes this for the copy of the layer
    return copy.deepcopy(model, memo)


def unmergeable(model: nn.Module) -> str | None:
    """The name of the method in ``model`` that cannot be merged, if there is one."""
    return next((module.method for module in model.modules() if isinstance(module, Unmergeable)), None)


def uniform_rules(model: nn.Module, lr_mult: float, weight_decay: float | None, group: str) -> dict[str, ParameterRule]:
    """One rule for every trainable parameter of ``model``, by name."""
    rule = ParameterRule(lr_mult, weight_decay, group)
    return {name: rule for name, parameter in model.named_parameters() if parameter.requires_grad}


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


def _saved(model: nn.Module) -> dict[str, torch.Tensor]:
    """See `adapter_state`; the tensors themselves."""
    stored = model.state_dict(keep_vars=True)
    always = {
        f"{layer_name}.{branch_name}.{factor}"
        for layer_name, layer in low_rank_layers(model)
        for branch_name in layer.branches()
        for factor in ("lora_a", "lora_b")
    }
    return {
        name: tensor
        for name, tensor in stored.items()
        if tensor.requires_grad or name in always or not isinstance(tensor, nn.Parameter)
    }


def _some(label: str, names: list[str]) -> str:
    """``missing: a, b, ... (96 in all)``."""
    shown = ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")
    return f"{label}: {shown or 'none'}"
