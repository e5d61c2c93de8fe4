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
    """Everything trains; norms, biases and LayerScale do not decay unless ``decay_all`` says so.

    Attributes:
        lr_mult: relative to the base learning rate.
        weight_decay: of what decays; None takes the optimizer's own.
        decay_all: everything decays, as where a configuration in mmengine's way has one rule for ``backbone``: it is
            preferred to the one for ``norm``, whose name is shorter.
    """

    lr_mult: float
    weight_decay: float | None = None
    decay_all: bool = False

    def apply(self, model: nn.Module, setting: Setting) -> Adapted:
        """See `method.Method.apply`."""
        model.requires_grad_(True)
        matrix = ParameterRule(self.lr_mult, self.weight_decay, "full")
        norm = ParameterRule(self.lr_mult, 0.0, "full.norm")
        spared = {name for name, p in model.named_parameters() if p.ndim < 2 and not self.decay_all}
        return Adapted({name: norm if name in spared else matrix for name, _ in model.named_parameters()})
