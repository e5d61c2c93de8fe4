"""GeCo (CVPR 2026): the geometry of the last level's tokens says how far they may move without another answer.

For each token F_i: g = F / |F| and the offsets O (k, c) to its k nearest neighbours by g. The top eigenpairs (V, l) of
O O^T + 1e-6 I give an orthonormal basis of tangents b_m = l_m^{-1/2} V_m^T O; what they leave, R = O - V V^T O, gives
the curvature k_i = mean_j |R_j|^2 / (|O_j|^2 + eps). Gaussian noise n has the tangent part t = sum_m <n, b_m> b_m; the
direction u is t where k_i is at or above the image's median and t + 0.2 (n - t) elsewhere, of length 1. The token moves
to F_i + size / (1 + k_i) u |F_i|. The loss is the mean over pixels of arccos^2(sum sqrt(p q)), the squared geodesic
distance of the class probabilities: p of the tokens as they are, without a gradient, and q of the moved ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recyclelora.models.losses.config import GecoConfig
from recyclelora.models.losses.loss import LossInputs

EPSILON = 1e-6
TINY = 1e-20
"""under roots, whose slope has no end at 0"""
CLAMP = 30.0
"""of scores before a softmax, as released"""


@dataclass(frozen=True)
class Geco:
    """See the module."""

    options: GecoConfig

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """``loss_geco``; 0 before ``start``, and then without the cost of a forward."""
        if inputs.step < self.options.start:
            return {"loss_geco": inputs.features[-1].new_zeros((), dtype=torch.float32)}
        *others, last = inputs.features
        with torch.no_grad():
            clean = self._probabilities(inputs, inputs.decoded(inputs.features))
            shift = self.shift(last)
        moved = self._probabilities(inputs, inputs.decoded([*others, last + shift.to(last.dtype)]))
        return {"loss_geco": self.options.weight * squared_geodesic(clean, moved).mean()}

    def _probabilities(self, inputs: LossInputs, scores: Tensor) -> Tensor:
        if self.options.compares == "scores":
            return scores.float().clamp(-CLAMP, CLAMP).softmax(1)
        return inputs.probabilities(scores)

    def shift(self, level: Tensor) -> Tensor:
        """How the tokens of a level (B, c, h, w) move, in float32; those that are not drawn stay."""
        with torch.autocast(level.device.type, enabled=False):
            tokens = level.detach().float().flatten(2).transpose(1, 2)
            shift = torch.zeros_like(tokens)
            count = tokens.shape[1]
            drawn = torch.randperm(count, device=tokens.device)[: self.options.tokens]
            shift[:, drawn] = torch.stack([self._moves(image) for image in tokens[:, drawn]])
        return shift.transpose(1, 2).reshape(level.shape)

    def _moves(self, tokens: Tensor) -> Tensor:
        """Moves (N, c) of an image's tokens (N, c)."""
        o, noise = self.options, torch.randn_like(tokens)
        basis, curvature = tangents(tokens, min(o.neighbours, len(tokens) - 1), o.directions)
        along = torch.einsum("nm,nmc->nc", torch.einsum("nc,nmc->nm", noise, basis), basis)
        curved = (curvature >= curvature.median())[:, None]
        direction = torch.where(curved, along, along + o.off_tangent * (noise - along))
        unit: Tensor = direction / direction.norm(dim=1, keepdim=True).clamp(min=EPSILON)
        length: Tensor = tokens.norm(dim=1) if o.relative_to == "norm" else tokens.square().mean(1).sqrt()
        return o.size * (length / (1 + curvature))[:, None] * unit


def tangents(tokens: Tensor, neighbours: int, directions: int) -> tuple[Tensor, Tensor]:
    """Orthonormal tangents (N, m, c) and curvatures (N,) of tokens (N, c)."""
    unit = tokens / tokens.norm(dim=1, keepdim=True).clamp(min=EPSILON)
    likeness = unit @ unit.T
    likeness.fill_diagonal_(-torch.inf)
    nearest = likeness.topk(neighbours, dim=1).indices
    offsets = unit[nearest] - unit[:, None]
    gram = offsets @ offsets.transpose(1, 2) + EPSILON * torch.eye(neighbours, device=tokens.device)
    values, vectors = torch.linalg.eigh(gram)
    top = vectors[..., -directions:]
    basis = (top * values[:, None, -directions:].clamp(min=EPSILON).rsqrt()).transpose(1, 2) @ offsets
    rest = offsets - top @ (top.transpose(1, 2) @ offsets)
    curvature = (rest.square().sum(2) / (offsets.square().sum(2) + EPSILON)).mean(1)
    return basis, curvature


def squared_geodesic(p: Tensor, q: Tensor) -> Tensor:
    """arccos^2 (B, H, W) of Bhattacharyya's coefficient of probabilities (B, C, H, W): on the sphere of their roots.

    Worked out from the chord, arccos(c) = 2 arcsin(|sqrt p - sqrt q| / 2): near 1, where moves of a thousandth lie, the
    coefficient itself is rounded away in float32.
    """
    chord = (p.clamp(min=TINY).sqrt() - q.clamp(min=TINY).sqrt()).square().sum(1)
    return (2 * (chord / 4).clamp(min=TINY).sqrt().asin()).square()
