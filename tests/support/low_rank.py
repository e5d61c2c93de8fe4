"""The low-rank family in few words."""

from __future__ import annotations

from typing import Any

from torch import nn

from recyclelora.adapters.low_rank.config import BranchConfig, LowRankConfig
from recyclelora.adapters.low_rank.inject import LowRank
from recyclelora.adapters.method import Adapted, AdapterContext


def low_rank(main: BranchConfig, sub: BranchConfig | None = None, **options: Any) -> LowRankConfig:
    """An adapter with these branches."""
    return LowRankConfig(main=main, sub=sub, **options)


def inject(model: nn.Module, options: LowRankConfig, **context: Any) -> Adapted:
    """Put it into a model."""
    return LowRank(options).apply(model, AdapterContext(**context))


def count_trainable(model: nn.Module, options: LowRankConfig) -> int:
    """Trainable parameters that it would have, from shapes alone: ``model`` may be on meta."""
    total = 0
    for linear in LowRank(options).check(model).values():
        for branch in options.branches.values():
            total += branch.rank * (branch.train_a * linear.in_features + branch.train_b * linear.out_features)
        if options.train_bias and linear.bias is not None:
            total += linear.out_features
    return total
