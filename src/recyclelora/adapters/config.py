"""Options of the group ``adapter``: each dataclass has its defaults, says what is wrong and makes its method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from recyclelora.adapters.controls.config import (
    AdaptFormerConfig,
    FrozenConfig,
    FullConfig,
    NormsConfig,
    VptConfig,
)
from recyclelora.adapters.layers import LayersConfig
from recyclelora.adapters.low_rank.config import LowRankConfig
from recyclelora.adapters.products.config import DeloraConfig, HiraConfig, KasaConfig
from recyclelora.adapters.tokens.config import CausalTuneConfig, ReinConfig, SetConfig
from recyclelora.system.checks import Problem, above_zero, at_least, checked, within

if TYPE_CHECKING:  # at run time nothing here imports torch
    from recyclelora.adapters.method import Method

# OmegaConf reads these annotations at run time and wants Optional[...], not "... | None".
# ruff: noqa: UP045


@dataclass
class DoraConfig(LayersConfig):
    """DoRA: magnitude and direction of every weight row apart. Magnitudes learn as fast as A and B and do not decay."""

    kind: str = "dora"
    name: str = "dora"
    rank: int = checked(16, at_least, 1)
    """rows of A, columns of B"""
    alpha: float = checked(16.0, above_zero)
    """the layer's scale is s = alpha / rank"""

    def method(self) -> Method:
        from recyclelora.adapters.dora import DoRA

        return DoRA(self)


@dataclass
class VeraConfig(LayersConfig):
    """VeRA: two small vectors a layer around a random pair of matrices that all layers share."""

    kind: str = "vera"
    name: str = "vera"
    rank: int = checked(256, at_least, 1)
    """of the shared pair; may exceed the layers' width"""
    d_initial: float = checked(0.1, above_zero)
    """where the vectors d start"""
    projection_seed: int = checked(0, at_least, 0)
    """brings the shared pair back bit for bit; apart from the run's seed: a file of vectors keeps its meaning"""

    def method(self) -> Method:
        from recyclelora.adapters.vera import VeRA

        return VeRA(self)


@dataclass
class LoraXsConfig(LayersConfig):
    """LoRA-XS: the first singular directions of a weight stay, a small matrix between them learns."""

    kind: str = "lora_xs"
    name: str = "lora_xs"
    rank: int = checked(16, at_least, 1)
    """directions; rank x rank numbers of a layer train"""

    def method(self) -> Method:
        from recyclelora.adapters.fixed_directions import LoRAXS

        return LoRAXS(self)


@dataclass
class SvftConfig(LayersConfig):
    """SVFT in its plain form: all singular directions of a weight stay, the singular values learn."""

    kind: str = "svft"
    name: str = "svft"

    def method(self) -> Method:
        from recyclelora.adapters.fixed_directions import SVFT

        return SVFT(self)


@dataclass
class OploraConfig(LayersConfig):
    """OPLoRA: LoRA that leaves the first singular directions of a weight as they are."""

    kind: str = "oplora"
    name: str = "oplora"
    rank: int = checked(16, at_least, 1)
    """rows of A, columns of B"""
    alpha: float = checked(16.0, above_zero)
    """the layer's scale is s = alpha / rank"""
    protected: int = checked(16, at_least, 1)
    """singular directions that stay, on either side"""

    def method(self) -> Method:
        from recyclelora.adapters.fixed_directions import OPLoRA

        return OPLoRA(self)


@dataclass
class AdaLoraConfig(LayersConfig):
    """AdaLoRA: a budget of ranks over all layers."""

    kind: str = "adalora"
    name: str = "adalora"
    init_rank: int = checked(24, at_least, 1)
    """triplets of every layer at first"""
    target_rank: int = 16
    """triplets of a layer at the end, on average"""
    alpha: float = checked(24.0, above_zero)
    """the layer's scale is s = alpha / init_rank"""
    t_init: Optional[int] = checked(None, at_least, 0)
    """steps before the budget shrinks; null: a tenth of the run"""
    t_final: Optional[int] = checked(None, at_least, 0)
    """steps after it has shrunk; null: half of the run"""
    delta_t: Optional[int] = checked(None, at_least, 1)
    """steps between two share-outs; null: 400 of them in a run"""
    beta1: float = checked(0.85, within, "(0, 1)")
    """of the running average of sensitivities"""
    beta2: float = checked(0.85, within, "(0, 1)")
    """of the running average of their uncertainty"""
    orthogonality: float = checked(0.5, at_least, 0)
    """weight of the penalty that keeps P and Q near orthonormal; 0 does without"""
    across_blocks: ClassVar[bool] = True
    """it shares its budget out over the layers of all blocks"""

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        if not 1 <= self.target_rank <= self.init_rank:
            yield "target_rank", f"must lie between 1 and init_rank, {self.init_rank}"

    def check_with(self, decoder: Any, max_steps: int) -> Iterator[Problem]:
        first, last, _ = self.steps(max_steps)
        if first + last >= max_steps:
            yield (
                "t_init" if self.t_init is not None else "t_final",
                f"t_init={first} and t_final={last} together must be fewer than trainer.max_steps={max_steps}",
            )

    def steps(self, max_steps: int) -> tuple[int, int, int]:
        """``t_init``, ``t_final`` and ``delta_t`` in a run of ``max_steps``."""
        return (
            max_steps // 10 if self.t_init is None else self.t_init,
            max_steps // 2 if self.t_final is None else self.t_final,
            max(1, max_steps // 400) if self.delta_t is None else self.delta_t,
        )

    def method(self) -> Method:
        from recyclelora.adapters.adalora import AdaLoRA

        return AdaLoRA(self)


ADAPTERS: dict[str, type] = {
    "low_rank": LowRankConfig,
    "dora": DoraConfig,
    "vera": VeraConfig,
    "lora_xs": LoraXsConfig,
    "svft": SvftConfig,
    "oplora": OploraConfig,
    "kasa": KasaConfig,
    "delora": DeloraConfig,
    "hira": HiraConfig,
    "adalora": AdaLoraConfig,
    "rein": ReinConfig,
    "set": SetConfig,
    "causal_tune": CausalTuneConfig,
    "frozen": FrozenConfig,
    "full": FullConfig,
    "norms": NormsConfig,
    "adaptformer": AdaptFormerConfig,
    "vpt": VptConfig,
}
"""What an adapter's ``kind`` names. Other packages add theirs by entry points of the group ``recyclelora.adapters``."""
