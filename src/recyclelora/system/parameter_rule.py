"""How an optimizer treats one parameter: what adapters and decoders say and training does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParameterRule:
    """How one parameter learns."""

    lr_mult: float
    """relative to the base learning rate"""
    weight_decay: float | None
    """None takes the optimizer's own"""
    group: str
    """a name for all parameters of this rule, such as ``main.lora_a``"""
