"""AdaLoRA (Zhang et al., 2023, arXiv 2303.10512): ranks go to the layers where they matter most.

W' = W0 + s P diag(lambda) Q, a triplet (column of P, value, row of Q) for each rank; a budget over all layers shrinks
during training and the least important triplets lose their value; P and Q are kept near orthonormal by a penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.low_rank.inits import branch_rng
from recyclelora.adapters.method import Adapted, Setting
from recyclelora.adapters.rank_budget import BudgetSchedule, RankAllocator
from recyclelora.adapters.replacing import AdaptedLinear, check_rank, replace, selected_linears
from recyclelora.adapters.state import uniform_rules

START_DEVIATION = 0.02
"""Standard deviation of P and Q at the start, as in the authors' code and PEFT."""


class AdaLoRALinear(AdaptedLinear):
    """y = x W0^T + b + s ((x Q^T) * lambda) P^T with ``lora_a`` Q (rank, in), ``lora_e`` lambda (rank,), zero at
    first, and ``lora_b`` P (out, rank)."""

    def __init__(self, linear: nn.Linear, p: Tensor, q: Tensor, scale: float) -> None:
        super().__init__(linear)
        self.scale = scale
        device = linear.weight.device
        self.lora_a = nn.Parameter(q.to(device))
        self.lora_e = nn.Parameter(torch.zeros(len(q), device=device))
        self.lora_b = nn.Parameter(p.to(device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        base = F.linear(x, self.weight, self.bias)
        hidden = F.linear(x, self._scaled_a().to(x.dtype))
        return base + F.linear(hidden, self.lora_b.to(x.dtype))

    def _scaled_a(self) -> Tensor:
        return (self.scale * self.lora_e)[:, None] * self.lora_a

    def merged_weight(self) -> Tensor:
        """W0 + s P diag(lambda) Q (out, in), float64."""
        values = self.scale * self.lora_e.double()
        return self.weight.double() + self.lora_b.double() @ (values[:, None] * self.lora_a.double())


@dataclass(frozen=True)
class Orthogonality:
    """gamma times the mean over layers and factors of |P^T P - I| and |Q Q^T - I| (Frobenius), the regulariser of
    equation 4 in the form that the authors' code and PEFT run: norms, not squared."""

    layers: tuple[AdaLoRALinear, ...]
    gamma: float

    def penalty(self) -> Tensor:
        """A scalar loss."""
        norms = []
        for layer in self.layers:
            for gram in (layer.lora_a @ layer.lora_a.T, layer.lora_b.T @ layer.lora_b):
                norms.append((gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)).norm())
        return self.gamma * torch.stack(norms).mean()


@dataclass(frozen=True)
class AdaLoRA:
    """AdaLoRA as a method.

    Attributes:
        init_rank, target_rank: triplets of every layer at first, and on average at the end.
        alpha: s = alpha / init_rank.
        t_init, t_final: steps before the budget shrinks, and after; None: a tenth and a half of the run.
        delta_t: steps between two share-outs; None: 400 of them in a run.
        beta1, beta2: of the running averages.
        orthogonality: gamma, weight of the penalty; 0 does without.
        lr_mult, weight_decay: of all three factors.
        targets, blocks: see `selection.select_linears`.
    """

    init_rank: int
    target_rank: int
    alpha: float
    t_init: int | None = None
    t_final: int | None = None
    delta_t: int | None = None
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.5
    lr_mult: float = 1.0
    weight_decay: float = 0.0
    targets: tuple[str, ...] = ("*",)
    blocks: str = ":"

    def check(self, model: nn.Module) -> dict[str, nn.Linear]:
        """See `method.Method`; gives the layers that will be adapted, by name."""
        linears = selected_linears(model, self.targets, self.blocks)
        check_rank(self.init_rank, linears)
        return linears

    def apply(self, model: nn.Module, setting: Setting) -> Adapted:
        """See `method.Method.apply`."""
        linears = self.check(model)
        schedule = self._schedule(len(linears), setting.max_steps)
        layers = {name: self._layer(linear, setting.seed, name) for name, linear in linears.items()}
        replace(model, layers)
        allocator = RankAllocator(layers, schedule, self.beta1, self.beta2)
        return Adapted(
            uniform_rules(model, self.lr_mult, self.weight_decay, "adalora"),
            penalty=Orthogonality(tuple(layers.values()), self.orthogonality).penalty if self.orthogonality else None,
            after_step=allocator.after_step,
            training_state=allocator,
            constrain=allocator.constrain,
        )

    def _schedule(self, num_layers: int, max_steps: int) -> BudgetSchedule:
        return BudgetSchedule(
            self.init_rank * num_layers, self.target_rank * num_layers, max_steps,
            t_init=max_steps // 10 if self.t_init is None else self.t_init,
            t_final=max_steps // 2 if self.t_final is None else self.t_final,
            delta_t=max(1, max_steps // 400) if self.delta_t is None else self.delta_t,
        )  # fmt: skip

    def _layer(self, linear: nn.Linear, seed: int, name: str) -> AdaLoRALinear:
        rng = branch_rng(seed, name, "main")
        shapes = (linear.out_features, self.init_rank), (self.init_rank, linear.in_features)
        p, q = (torch.from_numpy(rng.normal(0.0, START_DEVIATION, shape)).float() for shape in shapes)
        return AdaLoRALinear(linear, p, q, self.alpha / self.init_rank)
