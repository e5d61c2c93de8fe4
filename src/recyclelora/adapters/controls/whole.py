"""Parts of the backbone itself: nothing of it trains, or everything, or its norms and biases."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from recyclelora.adapters.controls.config import FullConfig, NormsConfig
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import ParameterRule, uniform_rules
from recyclelora.adapters.transformer import chosen_blocks
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


@dataclass(frozen=True)
class Norms:
    """Scales and shifts of the norms train, and the biases of all layers of the blocks."""

    options: NormsConfig

    def check(self, model: nn.Module) -> dict[int, nn.Module]:
        """See `method.Method`; gives the blocks by number."""
        accept(self.options)
        return chosen_blocks(model, self.options.blocks)

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        blocks = self.check(model)
        model.requires_grad_(False)
        for block in blocks.values():
            for module in block.modules():
                norm = "norm" in type(module).__name__.lower()  # timm has its own
                for name, parameter in module.named_parameters(recurse=False):
                    bias = self.options.biases and name.endswith("bias")  # q_bias and v_bias of timm's EVA too
                    parameter.requires_grad_(bias or norm)
        return Adapted(uniform_rules(model, self.options.lr_mult, self.options.weight_decay, "norms"))
