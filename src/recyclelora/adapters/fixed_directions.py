"""Directions of the pretrained weight that stay, and coefficients that learn: LoRA-XS, SVFT, OPLoRA.

With W0 = U S V^T, singular values falling, U_k and V_k its first k columns:

- LoRA-XS (Bałazy et al., 2024, arXiv 2405.17604): W0 + U_r S_r R V_r^T; R (r, r) trains, from N(0, 1e-5^2).
- SVFT (Lingam et al., 2024, arXiv 2405.19597), its plain form: W0 + U diag(m) V^T; m (min(out, in),) trains, from 0.
- OPLoRA (AAAI 2026): W0 + s (I - U_k U_k^T) B A (I - V_k V_k^T), so that the first k directions stay as they are.

The directions follow from the weight, signs fixed, and are in no file.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recyclelora.adapters.config import LoraXsConfig, OploraConfig, SvftConfig
from recyclelora.adapters.linalg.svd import Triplets, full_triplets, major_triplets
from recyclelora.adapters.low_rank.factors import LayerWeight, branch_rng
from recyclelora.adapters.low_rank.init_random import kaiming
from recyclelora.adapters.low_rank.layer import Conversion
from recyclelora.adapters.replacing import AdaptedLinear, ReplacingMethod

SPREAD = 1e-5
"""Standard deviation of LoRA-XS' R at the start."""


class DirectionsLinear(AdaptedLinear):
    """A layer with fixed directions ``left`` (out, k) and ``right`` (k, in), float32.

    They are plain tensors that follow the layer from device to device: no state, and nothing that DDP would send in
    every step.
    """

    def __init__(self, linear: nn.Linear, found: Triplets) -> None:
        super().__init__(linear)
        device = linear.weight.device
        self.left = torch.from_numpy(found.u.astype(np.float32)).to(device)
        self.right = torch.from_numpy(found.vt.astype(np.float32)).to(device)

    def _apply(self, fn: Conversion, recurse: bool = True) -> DirectionsLinear:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.left, self.right = fn(self.left), fn(self.right)
        return self


class CoefficientLinear(DirectionsLinear):
    """y = x W0^T + b + (M (x right^T)) left^T; M = ``coefficients`` (k, k), or diagonal where these are (k,)."""

    def __init__(self, linear: nn.Linear, found: Triplets, coefficients: torch.Tensor) -> None:
        super().__init__(linear, found)
        self.coefficients = nn.Parameter(coefficients.to(linear.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        base = F.linear(x, self.weight, self.bias)
        seen = F.linear(x, self.right.to(x.dtype))
        m = self.coefficients
        hidden = seen * m.to(base.dtype) if m.ndim == 1 else F.linear(seen, m.to(seen.dtype))
        return base + F.linear(hidden, self.left.to(hidden.dtype))

    def merged_weight(self) -> torch.Tensor:
        """W0 + left M right (out, in), float64."""
        m = self.coefficients.double()
        right = self.right.double()
        return self.weight.double() + self.left.double() @ (m[:, None] * right if m.ndim == 1 else m @ right)


class ProtectedLinear(DirectionsLinear):
    """y = x W0^T + b + s P_U B A P_V x with P = I minus the projection onto the protected directions."""

    def __init__(self, linear: nn.Linear, found: Triplets, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__(linear, found)
        self.scale = scale
        self.lora_a, self.lora_b = (nn.Parameter(f.to(linear.weight.device, copy=True)) for f in (a, b))

    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A P_V (rank, in) and s P_U B (out, rank): as small as A and B, so nothing else is projected."""
        left, right = self.left.to(self.lora_b.dtype), self.right.to(self.lora_a.dtype)
        a = self.lora_a - (self.lora_a @ right.T) @ right
        b = self.lora_b - left @ (left.T @ self.lora_b)
        return a, self.scale * b

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in the dtype of the frozen linear (the autocast dtype under autocast)."""
        with torch.autocast(x.device.type, enabled=False):  # what is protected is so to float32's rounding
            a, b = self.factors()
        base = F.linear(x, self.weight, self.bias)
        return base + F.linear(F.linear(x, a.to(x.dtype)), b.to(x.dtype))

    def merged_weight(self) -> torch.Tensor:
        """W0 + s P_U B A P_V (out, in), float64."""
        a, b = self.factors()
        return self.weight.double() + b.double() @ a.double()


def _directions(layer: LayerWeight, count: int) -> Triplets:
    """The first triplets of a weight; zeros of their shapes for one on the meta device, which has only a size."""
    out, width = layer.weight.shape
    if layer.weight.is_meta:
        return Triplets(np.zeros((out, count)), np.zeros(count), np.zeros((count, width)))
    whole = count == min(out, width)
    return full_triplets(layer.matrix, slice(None)) if whole else major_triplets(layer.matrix, count)


class LoRAXS(ReplacingMethod):
    """LoRA-XS as a method."""

    options: LoraXsConfig
    decomposes = True

    def layer(self, linear: nn.Linear, name: str, seed: int) -> CoefficientLinear:
        """With a nearly zero R."""
        rank = self.options.rank
        found = _directions(LayerWeight(linear.weight, 1.0, name=name), rank)
        start = branch_rng(seed, name, "main").normal(0.0, SPREAD, (rank, rank))
        return CoefficientLinear(
            linear, found._replace(u=found.u * found.s), torch.from_numpy(start.astype(np.float32))
        )


class SVFT(ReplacingMethod):
    """SVFT as a method."""

    options: SvftConfig
    room = None
    decomposes = True

    def layer(self, linear: nn.Linear, name: str, seed: int) -> CoefficientLinear:
        """With m at zero."""
        count = min(linear.weight.shape)
        found = _directions(LayerWeight(linear.weight, 1.0, name=name), count)
        return CoefficientLinear(linear, found, torch.zeros(count))


class OPLoRA(ReplacingMethod):
    """OPLoRA as a method."""

    options: OploraConfig
    room = "rank+protected"
    decomposes = True

    def layer(self, linear: nn.Linear, name: str, seed: int) -> ProtectedLinear:
        """With A from kaiming-uniform draws and B at zero."""
        o, weight = self.options, LayerWeight(linear.weight, 1.0, name=name)
        start = kaiming(weight, o.rank, branch_rng(seed, name, "main"))
        a = start.dense_a(linear.in_features)
        return ProtectedLinear(linear, _directions(weight, o.protected), a, start.b, o.alpha / o.rank)
