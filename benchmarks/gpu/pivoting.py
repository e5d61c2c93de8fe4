"""Pivoted QR of all linear layers of DINOv2-L: on this machine's CPU as the project does it, and batched on the device.

The device's way: Householder reflections with column pivoting (Businger and Golub, 1965) on all blocks' matrices of one
shape at once, in float64, columns exchanged in place. It is a measurement and no part of the project: is it worth one?
Random weights with norms spread as in a trained DINOv2. Compared are the first pivots of both ways.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import Figures, device, options, wait
from rrqr import LEADING, MODELS, TRAILING, random_weight, shapes
from torch import Tensor

from recyclelora.adapters.linalg.rrqr import decompose


@torch.no_grad()
def batched_pivots(matrices: Tensor) -> Tensor:
    """Pivots (B, min(m, n)) of matrices (B, m, n), float64; the matrices are changed."""
    a, (count, rows, columns) = matrices, matrices.shape
    every = torch.arange(count, device=a.device)
    order = torch.arange(columns, device=a.device).repeat(count, 1)
    norms = a.square().sum(1)
    for step in range(min(rows, columns)):
        chosen = norms[:, step:].argmax(1) + step
        for tensor in (order, norms):
            held = tensor[every, chosen].clone()
            tensor[every, chosen] = tensor[:, step]
            tensor[:, step] = held
        column = a[every, :, chosen].clone()
        a[every, :, chosen] = a[:, :, step]
        a[:, :, step] = column
        v = column[:, step:].clone()
        v[:, 0] += torch.where(v[:, 0] < 0, -1.0, 1.0) * v.norm(dim=1)
        v /= v.norm(dim=1, keepdim=True).clamp(min=1e-300)
        rest = a[:, step:, step:]
        rest.baddbmm_(v[:, :, None], v[:, None] @ rest, alpha=-2)
        norms[:, step + 1 :] = (norms[:, step + 1 :] - a[:, step, step + 1 :].square()).clamp(min=0)
    return order[:, : min(rows, columns)]


def main() -> None:
    given = options(__doc__)
    where = device(given.dry)
    width, blocks = (48, 2) if given.dry else MODELS["L"]
    kinds = {"qkv": (3 * width, width), "fc1": (4 * width, width)} if given.dry else shapes("L")
    figures = Figures(given.output, blocks=blocks, width=width)
    batched_pivots(torch.randn(2, 8, 8, dtype=torch.float64, device=where))  # loads the device's libraries
    for kind, shape in kinds.items():
        weights = [random_weight(shape, 1.0, seed) for seed in range(blocks)]
        began = time.perf_counter()
        whole = torch.from_numpy(np.stack(weights)).to(where).double()
        pivots = batched_pivots(whole).cpu().numpy()
        wait()
        on_device = time.perf_counter() - began
        leading, trailing = (LEADING, TRAILING) if not given.dry else (2, 4)
        began = time.perf_counter()
        ours = [decompose(weight, leading, trailing) for weight in weights[:4]]
        on_cpu = (time.perf_counter() - began) / len(ours) * blocks
        equal = [list(found.pivots[:leading]) == list(p[:leading]) for found, p in zip(ours, pivots, strict=False)]
        figures.add(**{kind: {"device_seconds": round(on_device, 3), "cpu_seconds": round(on_cpu, 3),
                              "first_pivots_equal": all(equal)}})  # fmt: skip
    totals = {
        key: round(sum(found[key] for found in figures.values() if isinstance(found, dict)), 3)
        for key in ("device_seconds", "cpu_seconds")
    }
    figures.add(all_layers=totals)


if __name__ == "__main__":
    main()
