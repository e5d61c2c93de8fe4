"""The two ends of the scale: nothing of the backbone trains, or everything."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from recyclelora.adapters.method import Adapted, Setting
from recyclelora.adapters.state import ParameterRule


@dataclass(frozen=True)
class Frozen:
    """Nothing trains."""

    def apply(self, model: nn.Module, setting: Setting) -> Adapted:
        """See `method.Method.apply`."""
        model.requires_grad_(False)
        return Adapted()


@dataclass(frozen=True)
class Full:
    """Everything trains; norms, biases and LayerScale do not decay.

    Attributes:
        lr_mult: relative to the base learning rate.
        weight_decay: of the rest; None takes the optimizer's own.
    """

    lr_mult: float
    weight_decay: float | None = None

    def apply(self, model: nn.Module, setting: Setting) -> Adapted:
        """See `method.Method.apply`."""
        model.requires_grad_(True)
        matrix = ParameterRule(self.lr_mult, self.weight_decay, "full")
        norm = ParameterRule(self.lr_mult, 0.0, "full.norm")
        return Adapted({name: norm if p.ndim < 2 else matrix for name, p in model.named_parameters()})
