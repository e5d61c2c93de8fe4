"""What BitFit does to a backbone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import uniform_rules


@dataclass(frozen=True)
class BitFit:
    """Trains biases in place; nothing is added, so nothing has to be merged.

    Attributes:
        lr_mult: relative to the base learning rate.
        norms: train the weights of LayerNorms too.
    """

    lr_mult: float
    norms: bool

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `recyclelora.adapters.method.Method.apply`."""
        model.requires_grad_(False)
        for module in model.modules():
            if self.norms and isinstance(module, nn.LayerNorm) and module.elementwise_affine:
                module.weight.requires_grad_(True)
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.requires_grad_(True)
        return Adapted(uniform_rules(model, self.lr_mult, 0.0, "bitfit"))
