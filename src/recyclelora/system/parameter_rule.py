"""How an optimizer treats one parameter: what adapters and decoders say and training does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ParameterRule:
    """How one parameter learns."""

    lr_mult: float
    """relative to the base learning rate"""
    weight_decay: float | None
    """None takes the optimizer's own"""
    group: str
    """a name for all parameters of this rule, such as ``main.lora_a``"""


def decayed_by_layer(
    rules: Mapping[str, ParameterRule], decay: float, depth: int, pretrained: Collection[str]
) -> dict[str, ParameterRule]:
    """Layer-wise rates: what is in block l of ``depth`` learns at ``decay ** (depth - 1 - l)`` of its rule's rate.

    What the backbone had before its blocks learns as the first block does. What an adapter adds outside the blocks,
    such as tokens of all of them, keeps its rate, as does the final norm.

    Args:
        rules: by the names of the backbone's parameters
        decay: 1 leaves all as they are
        depth: number of blocks
        pretrained: names of the parameters that the backbone had before it was adapted
    """
    found = dict(rules)
    for name, rule in rules.items() if decay < 1 else ():
        parts = name.split(".")
        if parts[0] == "blocks" or (name in pretrained and parts[0] != "norm"):
            block = int(parts[1]) if parts[0] == "blocks" else 0
            group = f"{rule.group}.block{block:02d}"
            found[name] = replace(rule, lr_mult=rule.lr_mult * decay ** (depth - 1 - block), group=group)
    return found
