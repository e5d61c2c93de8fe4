"""The two ends of the scale: nothing of the backbone trains, or everything."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from recyclelora.adapters.config import FullConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import ParameterRule
from recyclelora.system.checks import accept


@dataclass(frozen=True)
class Frozen:
    """Nothing trains."""

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        model.requires_grad_(False)
        return Adapted()


@dataclass(frozen=True)
class Full:
    """Everything trains; norms, biases and LayerScale do not decay unless ``decay_all`` says so."""

    options: FullConfig

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        accept(self.options)
        model.requires_grad_(True)
        matrix = ParameterRule(self.options.lr_mult, self.options.weight_decay, "full")
        norm = ParameterRule(self.options.lr_mult, 0.0, "full.norm")
        spared = {name for name, p in model.named_parameters() if p.ndim < 2 and not self.options.decay_all}
        return Adapted({name: norm if name in spared else matrix for name, _ in model.named_parameters()})
