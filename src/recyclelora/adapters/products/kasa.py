"""KaSA (Wang et al., ICLR 2025, arXiv 2412.06071): new singular triplets in place of the smallest ones.

W' = W0 - U_- S_- V_-^T + s B diag(lambda) A, where the triplets with - are the ``rank`` smallest of W0. A starts
kaiming-uniform, lambda from N(0, 1) and B at zero, as in the authors' code and PEFT: the start is W0 without its tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recyclelora.adapters.adalora import TripletLinear, departures
from recyclelora.adapters.linalg.svd import minor_triplets
from recyclelora.adapters.low_rank.factors import LayerWeight, branch_rng
from recyclelora.adapters.low_rank.init_random import kaiming
from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.products.config import KasaConfig
from recyclelora.adapters.replacing import ReplacingMethod


@dataclass(frozen=True)
class Regularizer:
    """Sum over layers of beta |lambda|^2 + gamma (|B^T B - I| + |A A^T - I|), equations 9 to 11, Frobenius norms."""

    layers: tuple[TripletLinear, ...]
    beta: float
    gamma: float

    def penalty(self) -> Tensor:
        """A scalar loss."""
        values = torch.stack([layer.lora_e.square().sum() for layer in self.layers])
        return self.beta * values.sum() + self.gamma * departures(self.layers).sum()


class KaSA(ReplacingMethod):
    """KaSA as a method; at least one triplet of a weight must be left."""

    options: KasaConfig
    room = "rank+1"
    decomposes = True

    def adapted(self, model: nn.Module, layers: Mapping[str, TripletLinear], context: AdapterContext) -> Adapted:
        """With the penalty on its triplets."""
        o = self.options
        regularizer = Regularizer(tuple(layers.values()), o.shrinkage, o.orthogonality)
        penalty = regularizer.penalty if o.shrinkage or o.orthogonality else None
        return replace(super().adapted(model, layers, context), penalty=penalty)

    def layer(self, linear: nn.Linear, name: str, seed: int) -> TripletLinear:
        """Without the smallest triplets of the weight, and with as many new ones."""
        rank, rng = self.options.rank, branch_rng(seed, name, "main")
        weight = LayerWeight(linear.weight, 1.0, name=name)
        start = kaiming(weight, rank, rng)
        values = torch.from_numpy(rng.standard_normal(rank)).float()
        layer = TripletLinear(linear, start.b, values, start.dense_a(linear.in_features), self.options.alpha / rank)
        if not linear.weight.is_meta:
            dropped = minor_triplets(weight.matrix, rank)
            kept = torch.from_numpy(weight.matrix - (dropped.u * dropped.s) @ dropped.vt)
            layer.weight = nn.Parameter(kept.to(linear.weight), requires_grad=False)
        return layer
