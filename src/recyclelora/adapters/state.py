"""What a run keeps of where its adapters started, how their parameters learn, and the merged model of an export."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from recyclelora.adapters.low_rank.layer import LowRankLinear
from recyclelora.system.parameter_rule import ParameterRule as ParameterRule


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


def initial_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """B0 and A0 under the names of the parameters they started; a 0/1 A0 as int64 positions of its ones (rank,).

    A branch with B0 = 0 whose A trains is left out unless it comes from data, and so is everything outside the low-rank
    family: what they start from follows from the seed and the weights.
    """
    state = {}
    for name, layer in low_rank_layers(model):
        for branch_name, branch in layer.branches().items():
            if branch.lora_a.requires_grad and not branch.initial.b.any() and not branch.initial.from_data:
                continue
            a = branch.initial.a if branch.initial.a is not None else branch.initial.a_index
            assert a is not None
            state[f"{name}.{branch_name}.lora_a"] = a.clone()
            state[f"{name}.{branch_name}.lora_b"] = branch.initial.b.clone()
    return state


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
