"""EVA's sharing out of ranks: a budget over all layers goes to the directions that explain most of their inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recyclelora.adapters.low_rank.factors import Factors


def shared_out(candidates: Mapping[str, Factors], budget: int) -> dict[str, Factors]:
    """The candidates of every layer cut to its rank, which may be 0; largest shares first, of equal ones the first.

    Args:
        candidates: by layer, with ``shares`` that fall from row to row
        budget: ranks of all layers together; fewer where there are no more candidates
    """
    shares = [factors.shares for factors in candidates.values()]
    owners = np.repeat(np.arange(len(shares)), [factors.rank for factors in candidates.values()])
    order = np.argsort(-np.concatenate([share for share in shares if share is not None]), kind="stable")
    ranks = np.bincount(owners[order[:budget]], minlength=len(shares))
    return {name: factors.first(int(rank)) for (name, factors), rank in zip(candidates.items(), ranks, strict=True)}
