"""Which linear layers of a vision transformer are adapted: patterns over names, and a range of blocks."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from recyclelora.adapters.adaptable import check_adaptable
from recyclelora.adapters.blocks import parse_blocks

ROLES = {"qkv": ("q_proj", "k_proj", "v_proj"), "fc1": ("fc1_g", "fc1_x")}
"""What most models do in one layer, and the layers that do it apart in others (timm's EVA02): a pattern that names the
one finds the others too."""


def select_linears(model: nn.Module, targets: Sequence[str] = ("*",), blocks: str = ":") -> list[str]:
    """Full names, such as ``blocks.3.attn.qkv``, of the linear layers to adapt, in model order.

    Args:
        model: a transformer with its blocks in ``model.blocks`` (as timm's); may live on the meta device.
        targets: shell patterns over full names; each must match something. A name counts by its role as well:
            ``*.attn.qkv`` finds ``q_proj``, ``k_proj`` and ``v_proj`` where these are layers of their own.
        blocks: ``:`` (all), ``8:``, ``-4:``, ``0,3,5`` (0-based; slices and numbers may be mixed).

    Raises:
        ValueError: naming the pattern or range that matches nothing, or a layer that cannot be adapted.
    """
    available = _linears_of_blocks(model, blocks)
    roles = {name: role(name, available) for name in available}
    matches = {
        target: [name for name in available if any(fnmatch.fnmatch(n, target) for n in (name, roles[name]))]
        for target in targets
    }
    for target, matched in matches.items():
        if not matched:
            raise ValueError(
                f"targets: {target!r} matches no linear layer of blocks {blocks!r}; {_hint(target, available)}"
            )
    chosen = set().union(*matches.values())
    names = [name for name in available if name in chosen]
    if not names:
        raise ValueError("targets: no pattern given; use '*' for every linear layer of the blocks")
    check_adaptable(model, names)
    return names


def role(name: str, names: Iterable[str]) -> str:
    """The name that a layer's work has where one layer does all of it; its own name if there is nothing to join."""
    parent, _, own = name.rpartition(".")
    for joined, parts in ROLES.items():
        if own in parts and all(f"{parent}.{part}" in names for part in parts):
            return f"{parent}.{joined}"
    return name


def _linears_of_blocks(model: nn.Module, blocks: str) -> dict[str, nn.Linear]:
    """Name -> linear layer in the chosen blocks; a layer that appears under two names is listed twice."""
    holder = getattr(model, "blocks", None)
    if not isinstance(holder, nn.Sequential | nn.ModuleList) or len(holder) == 0:
        raise ValueError(f"{type(model).__name__} has no `blocks` (nn.Sequential or nn.ModuleList) to adapt")
    return {
        name: module
        for number in parse_blocks(blocks, len(holder))
        for name, module in holder[number].named_modules(prefix=f"blocks.{number}", remove_duplicate=False)
        if isinstance(module, nn.Linear)
    }


def _hint(target: str, available: dict[str, nn.Linear]) -> str:
    """The nearest name, or the pattern of those that end like it, and a few others."""
    names = list(available)
    ends = [f"*.{target}"] if any(name.endswith(f".{target}") for name in names) else []
    nearest = ends or difflib.get_close_matches(target, names, n=1, cutoff=0.0)
    shown = ", ".join(names[:4])
    return f"did you mean {nearest[0]!r}? Available: {shown}, ..." if nearest else "those blocks hold no linear layer"


def separate_qkv_bias(model: nn.Module, names: Sequence[str]) -> None:
    """Make timm's EVA and BEiT attention call ``qkv`` and add their q, k, v biases afterwards (the same result)."""
    for name in names:
        parent: Any = model.get_submodule(name.rpartition(".")[0])
        if hasattr(parent, "qkv_bias_separate"):
            parent.qkv_bias_separate = True
