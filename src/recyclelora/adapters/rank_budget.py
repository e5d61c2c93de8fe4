"""AdaLoRA's share-out of ranks: how much every rank-1 triplet matters, and which ones the shrinking budget keeps.

Zhang et al., 2023, arXiv 2303.10512, section 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

SENSITIVITY, UNCERTAINTY, KEPT = "sensitivity", "uncertainty", "kept"


@dataclass(frozen=True)
class BudgetSchedule:
    """b(t), the number of triplets kept in all layers together (equation 12).

    Attributes:
        start, end: budget up to step ``t_init``, and from step ``max_steps - t_final`` on; a cubic between.
        delta_t: steps between two share-outs.
    """

    start: int
    end: int
    max_steps: int
    t_init: int
    t_final: int
    delta_t: int

    def __post_init__(self) -> None:
        if self.t_init + self.t_final >= self.max_steps:
            raise ValueError(
                f"t_init={self.t_init} and t_final={self.t_final}: together they must be fewer than the "
                f"{self.max_steps} steps of the run"
            )

    @property
    def last(self) -> int:
        """The step of the last share-out; what it keeps is kept to the end."""
        return self.max_steps - self.t_final

    def budget(self, step: int) -> int:
        """b(t) after ``step`` finished steps."""
        if step <= self.t_init:
            return self.start
        left = 1 - (step - self.t_init) / (self.last - self.t_init)
        return int(self.end + (self.start - self.end) * max(0.0, left) ** 3)

    def due(self, step: int) -> bool:
        """Whether triplets are shared out after ``step`` finished steps."""
        return step == self.last or (self.t_init < step < self.last and step % self.delta_t == 0)


class Triplets(Protocol):
    """A layer with rank-1 triplets: ``lora_b`` (out, rank), values ``lora_e`` (rank,), ``lora_a`` (rank, in)."""

    lora_a: nn.Parameter
    lora_e: nn.Parameter
    lora_b: nn.Parameter


@dataclass
class RankAllocator:
    """Watches every step and switches triplets off by setting their value to zero.

    Sensitivity of an entry w: |w dL/dw|, smoothed over steps with ``beta1``; uncertainty: its smoothed deviation, with
    ``beta2``. Importance of a triplet: the sum over its value, row and column of the mean product of the two
    (equations 8 to 11). All averages are state of the training: see `method.TrainingState`.
    """

    layers: Mapping[str, Triplets]
    schedule: BudgetSchedule
    beta1: float = 0.85
    beta2: float = 0.85
    averages: dict[str, dict[str, Tensor]] = field(default_factory=lambda: {SENSITIVITY: {}, UNCERTAINTY: {}})
    kept: dict[str, Tensor] = field(default_factory=dict)
    """layer -> which triplets stay to the end (rank,) bool; empty until the last share-out"""

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Watch and share out; called after the optimizer's ``step``-th step, gradients still there."""
        if step < self.schedule.last:
            self._watch()
        if self.schedule.due(step):
            kept = self.share_out(self.schedule.budget(step))
            if step == self.schedule.last:
                self.kept = kept
                self.averages = {SENSITIVITY: {}, UNCERTAINTY: {}}
        self.constrain({f"{name}.lora_e": self.layers[name].lora_e for name in self.kept})

    @torch.no_grad()
    def constrain(self, state: Mapping[str, Tensor]) -> None:
        """Switch off, in any values ``<layer>.lora_e`` of the triplets, what the last share-out has not kept."""
        for name, mask in self.kept.items():
            values = state[f"{name}.lora_e"]
            values.masked_fill_(~mask.to(values.device), 0.0)

    @torch.no_grad()
    def share_out(self, budget: int) -> dict[str, Tensor]:
        """Keep the ``budget`` most important triplets of all layers and zero the values of the others.

        Returns:
            layer -> the kept ones (rank,) bool; among equals the first in model order.
        """
        scores = {name: self.importance(name) for name in self.layers}
        order = torch.cat(list(scores.values())).argsort(descending=True, stable=True)
        flags = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        flags[order[:budget]] = True
        parts = torch.split(flags, [len(score) for score in scores.values()])
        kept = dict(zip(scores, parts, strict=True))
        for name, mask in kept.items():
            self.layers[name].lora_e.masked_fill_(~mask, 0.0)
        return kept

    def importance(self, layer: str) -> Tensor:
        """Importance (rank,) of the triplets of one layer; zeros before the first step."""
        total = torch.zeros_like(self.layers[layer].lora_e)
        for name, parameter in _entries(layer, self.layers[layer]):
            if name not in self.averages[SENSITIVITY]:
                continue
            score = (self.averages[SENSITIVITY][name] * self.averages[UNCERTAINTY][name]).to(parameter.device)
            factor = name.rpartition(".")[2]
            total += score if factor == "lora_e" else score.mean(1 if factor == "lora_a" else 0)
        return total

    def _watch(self) -> None:
        sensitivity, uncertainty = self.averages[SENSITIVITY], self.averages[UNCERTAINTY]
        for layer, triplets in self.layers.items():
            for name, parameter in _entries(layer, triplets):
                assert parameter.grad is not None
                now = (parameter * parameter.grad).abs()
                for averages in (sensitivity, uncertainty):
                    averages[name] = averages.get(name, torch.zeros_like(now)).to(now.device)
                sensitivity[name].lerp_(now, 1 - self.beta1)
                uncertainty[name].lerp_((now - sensitivity[name]).abs(), 1 - self.beta2)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages under ``<kind>.<parameter>`` and what is kept under ``kept.<layer>``."""
        kinds = self.averages | {KEPT: self.kept}
        return {f"{kind}.{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        kinds: dict[str, dict[str, Tensor]] = {SENSITIVITY: {}, UNCERTAINTY: {}, KEPT: {}}
        for key, tensor in state.items():
            kind, _, name = key.partition(".")
            kinds[kind][name] = tensor.clone()
        self.kept = kinds.pop(KEPT)
        self.averages = kinds


def _entries(layer: str, triplets: Triplets) -> Iterator[tuple[str, nn.Parameter]]:
    for factor in ("lora_a", "lora_e", "lora_b"):
        yield f"{layer}.{factor}", getattr(triplets, factor)
