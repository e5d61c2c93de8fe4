"""Which linear layers can be adapted at all: those that are called, by one owner of their weight."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

from torch import nn


def check_adaptable(model: nn.Module, names: Sequence[str]) -> None:
    """Refuse layers in which an adapter would have no effect, or an effect somewhere else too.

    Args:
        model: the model that holds them.
        names: full names of linear layers.

    Raises:
        ValueError: naming the layer, and what to do. Refused are subclasses of ``nn.Linear`` (quantised,
            parametrised), ``nn.MultiheadAttention`` (packs q, k and v, and reads all its weights instead of calling
            layers), other modules whose code reads the weight, and tied weights.
    """
    for name in names:
        _refuse_multihead_attention(model, name)
        _refuse_subclass(model, name)
        _refuse_readers(model, name)
    _refuse_tied(model, names)


def _refuse_multihead_attention(model: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    if isinstance(model.get_submodule(parent), nn.MultiheadAttention):
        raise ValueError(
            f"{name} belongs to an nn.MultiheadAttention, which packs q, k and v in `in_proj_weight` and "
            f"reads the weight of {child} instead of calling it, so adapters would have no effect; "
            "narrow `targets` to leave it out"
        )


def _refuse_subclass(model: nn.Module, name: str) -> None:
    module = model.get_submodule(name)
    if type(module) is not nn.Linear:
        raise ValueError(
            f"{name} is a {type(module).__name__}, not a plain nn.Linear; narrow `targets` to leave it out"
        )


def _refuse_readers(model: nn.Module, name: str) -> None:
    """Every module above the layer, down to its parent, is asked whether its code reads the weight."""
    parts = name.split(".")
    for length in range(len(parts)):
        owner = model.get_submodule(".".join(parts[:length]))
        if length == len(parts) - 1 and hasattr(owner, "qkv_bias_separate"):
            return  # timm's EVA and BEiT attention: `selection.separate_qkv_bias` makes them call the layer
        if _reads_weight(type(owner), ".".join(parts[length:])):
            raise ValueError(
                f"{name}: {type(owner).__name__} reads its weight directly, so adapters would have no effect; "
                "narrow `targets` to leave it out"
            )


def _reads_weight(owner: Any, path: str) -> bool:
    """Whether a method of ``owner`` that is no initialisation uses ``self.<path>.weight`` for more than its kind."""
    use = rf"\bself\.{re.escape(path)}\.weight\b(?!\.(dtype|device|shape|size)\b)"
    return re.search(use, _code(owner)) is not None


@lru_cache(maxsize=256)
def _code(owner: Any) -> str:
    """The source of every method that may run in a forward."""
    methods = inspect.getmembers(owner, inspect.isfunction)
    own = [method for name, method in methods if name == "forward" or not hasattr(nn.Module, name)]
    return "\n".join(_source(method) for method in own if not re.search("init|reset", method.__name__))


def _source(function: Callable[..., object]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""  # compiled or generated code cannot be looked at


def _refuse_tied(model: nn.Module, names: Sequence[str]) -> None:
    """A tensor that is used in two places cannot get a residual of its own in one of them."""
    weights = {f"{name}.weight": name for name in names}
    owners: dict[Hashable, str] = {}
    tied = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # The place in memory: two parameters may share it. On the meta device there is none.
        place = parameter.data_ptr()
        first = owners.setdefault((place, parameter.shape) if place else id(parameter), name)
        if first != name and (first in weights or name in weights):
            tied.append((first, name))
    if tied:
        first, second = (name.removesuffix(".weight") for name in tied[0])
        raise ValueError(f"{first} and {second} share one weight; adapt a model without tied layers")
