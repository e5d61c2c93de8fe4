"""Column-pivoted QR of many weights of one shape at once, on a device: the pivots and signs of LAPACK, in float64.

On a GPU a product with one vector is bound by memory traffic and the launch of a kernel, not by arithmetic. So this
is the plain algorithm of ``geqp3`` (Quintana-Orti, Sun and Bischof, 1998), one pivot after the other in panels, for a
batch of layers in the same launches, and without asking the device for anything before a panel is done:

- Columns stay where they are within a panel; only positions are exchanged, in LAPACK's order, which decides ties.
- A panel's norms start exact and are lowered by each new row of R. Once the longest column left is shorter than
  ``_STALE`` times the longest at the start, cancellation could mislead the choice: later steps are undone.
- The columns left are then gathered and brought up to date with one product.

The host waits for the device once a panel. `pivoting` does the same work on a CPU with fewer passes over memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from recyclelora.adapters.linalg.rrqr import RRQR, assemble, check_request, numerical_rank
from recyclelora.adapters.rounding import stored_eps

_PANEL = 32
_STALE = 1e-4  # of squared norms: their error stays below 1e-12 of the largest
_COPIES = 4  # of a weight in float64 that one decomposition holds at a time, at most
_CPU_BYTES = 2**30


def decompose_batch(weights: Sequence[Tensor], leading: int, trailing: int, device: torch.device) -> list[RRQR]:
    """`rrqr.decompose` of weights (out x in) of equal shape, together on ``device``, in float64.

    The weights are neither changed nor copied more than a batch at a time. The results are on the CPU.

    Raises:
        ValueError: for weights of several shapes, or more columns than ``min(out, in)``. Values are the caller's
            responsibility: see `check_on_device`.
    """
    if len({tuple(weight.shape) for weight in weights}) > 1:
        raise ValueError("a batch needs weights of one shape")
    results: list[RRQR] = []
    while len(results) < len(weights):
        check_request(tuple(weights[0].shape), leading, trailing)
        size = _batch_size(weights[0].shape, device)
        batch = weights[len(results) : len(results) + size]
        # (batch, in, out): every column of a weight is contiguous.
        columns = torch.stack([weight.detach().to(device, torch.float64).T for weight in batch])
        known = [stored_eps(weight) for weight in batch]
        results += _results(_eliminate(columns), tuple(weights[0].shape), leading, trailing, known)
    return results


def check_on_device(weight: Tensor) -> None:
    """Refuse values without a meaningful decomposition, as on the CPU."""
    largest = float(weight.detach().abs().max())
    if largest != largest or largest == float("inf"):
        raise ValueError("weight holds NaN or infinity; its RRQR is undefined")
    if largest == 0:
        raise ValueError("weight is all zeros; it has no directions to recycle")


def _batch_size(shape: torch.Size, device: torch.device) -> int:
    """Layers that fit into half of the device's free memory."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2 * _CPU_BYTES
    return max(1, int(free // (2 * _COPIES * 8 * shape[0] * shape[1])))


@dataclass(frozen=True)
class _Panel:
    """Reflectors of consecutive pivots in compact form, (I - V T V^T) on rows ``start`` onwards.

    ``v`` (batch, rows - start, count); ``t_inverse`` (batch, count, count), upper triangular.
    """

    start: int
    v: Tensor
    t_inverse: Tensor


@dataclass
class _Elimination:
    """What has been found: ``order`` (batch, in), pivots first; ``diagonal`` of R, a list of (batch, count)."""

    order: Tensor
    num_rows: int
    diagonal: list[Tensor] = field(default_factory=list)
    panels: list[_Panel] = field(default_factory=list)


def _eliminate(columns: Tensor) -> _Elimination:
    """Eliminate all columns (batch, in, out), which are used up."""
    batch, num_columns, num_rows = columns.shape
    largest = columns.abs().amax((1, 2), keepdim=True)
    columns /= largest / torch.frexp(largest).mantissa  # a power of two: exact, and keeps squared norms in range
    order = torch.arange(num_columns, device=columns.device).repeat(batch, 1)
    found, done, steps = _Elimination(order, num_rows), 0, min(num_rows, num_columns)
    while done < steps:
        work = _factor_panel(columns, min(_PANEL, steps - done))
        count = work.trustworthy()
        work.undo_from(count)
        v = work.v[:, :, :count]
        found.diagonal.append(work.diagonal[:, :count])
        found.panels.append(_Panel(done, v, _t_inverse(v, work.tau[:, :count])))
        found.order[:, done:] = found.order[:, done:].gather(1, work.position)
        left = work.position[:, count:, None]
        columns = columns[:, :, count:].gather(1, left.expand(-1, -1, columns.shape[2] - count))
        f = work.f[:, :, :count].gather(1, left.expand(-1, -1, count))
        columns.baddbmm_(f, v[:, count:].transpose(1, 2), alpha=-1)
        done += count
    return found


@dataclass
class _Work:
    """A panel in the making; n columns of m rows are left, the panel has room for ``size`` pivots.

    Attributes:
        position: (batch, n), which column stands at each place; LAPACK would have moved the columns.
        norms: (batch, n), squared and by place.
        v: (batch, m, size), the Householder vectors; f: (batch, n, size), so that columns^T - v f^T is up to date.
        tau, diagonal, picked: (batch, size), factor of each reflector, entry of R, squared norm of the chosen column.
        places: (batch, size), where each pivot stood.
    """

    position: Tensor
    norms: Tensor
    v: Tensor
    f: Tensor
    tau: Tensor
    diagonal: Tensor
    picked: Tensor
    places: Tensor

    def trustworthy(self) -> int:
        """Steps whose choice no cancellation can have misled, in the worst layer of the batch; the first always is."""
        fine = self.picked >= _STALE * self.picked[:, :1]
        return max(1, int(fine.long().cumprod(1).sum(1).min()))

    def undo_from(self, count: int) -> None:
        """Put the columns chosen after ``count`` steps back to their places."""
        for step in reversed(range(count, self.places.shape[1])):
            _exchange(self.position, step, self.places[:, step])


def _factor_panel(columns: Tensor, size: int) -> _Work:
    """Choose ``size`` pivots among the columns (batch, n, m), which are only read."""
    batch, n, m = columns.shape
    work = _Work(
        position=torch.arange(n, device=columns.device).repeat(batch, 1),
        norms=torch.linalg.vector_norm(columns, dim=2).square(),
        v=columns.new_zeros(batch, m, size),
        f=columns.new_zeros(batch, n, size),
        tau=columns.new_zeros(batch, size),
        diagonal=columns.new_zeros(batch, size),
        picked=columns.new_zeros(batch, size),
        places=torch.zeros(batch, size, dtype=torch.int64, device=columns.device),
    )
    for step in range(size):
        work.places[:, step] = work.norms[:, step:].argmax(1) + step
        _exchange(work.position, step, work.places[:, step])
        _exchange(work.norms, step, work.places[:, step])
        work.picked[:, step] = work.norms[:, step]
        _reflect(work, columns, step)
        row = columns[:, :, step] - (work.f[:, :, : step + 1] @ work.v[:, step, : step + 1, None])[..., 0]
        work.norms -= row.gather(1, work.position).square()
    return work


def _reflect(work: _Work, columns: Tensor, step: int) -> None:
    """Householder vector of the chosen column (as LAPACK's ``larfg``) and what it does to all columns."""
    chosen = work.position[:, step, None, None]
    v, f = work.v[:, :, :step], work.f[:, :, :step]
    column = columns.gather(1, chosen.expand(-1, 1, columns.shape[2]))[:, 0]
    column = column - (v @ f.gather(1, chosen.expand(-1, 1, step)).transpose(1, 2))[..., 0]
    head, tail = column[:, step], column[:, step + 1 :]
    length = torch.linalg.vector_norm(tail, dim=1)
    below = length > 0  # else H = I, with v = 0
    beta = -torch.copysign(torch.hypot(head, length), head)
    work.diagonal[:, step] = torch.where(below, beta, head)
    work.tau[:, step] = torch.where(below, (beta - head) / beta, 1.0)
    work.v[:, step + 1 :, step] = torch.where(below[:, None], tail / (head - beta)[:, None], 0.0)
    work.v[:, step, step] = below.to(columns.dtype)
    new = work.v[:, :, step, None]
    products = columns @ new - f @ (v.transpose(1, 2) @ new)
    work.f[:, :, step] = work.tau[:, step, None] * products[..., 0]


def _exchange(values: Tensor, step: int, places: Tensor) -> None:
    """Exchange the entries at ``step`` and at ``places`` (batch,) of every row of ``values`` (batch, n), in place."""
    first, places = values[:, step, None].clone(), places[:, None]
    values[:, step, None] = values.gather(1, places)
    values.scatter_(1, places, first)


def _t_inverse(v: Tensor, tau: Tensor) -> Tensor:
    """T^-1 of I - V T V^T: with tau = 2 / |v|^2 for every reflector, T^-1 + T^-T = V^T V."""
    return torch.triu(v.transpose(1, 2) @ v, 1) + torch.diag_embed(1 / tau)


def _columns_of_q(found: _Elimination, wanted: list[int]) -> Tensor:
    """Columns of Q (batch, out, len(wanted)): all reflectors, last first, applied to unit vectors."""
    batch = len(found.order)
    q = found.panels[0].v.new_zeros(batch, found.num_rows, len(wanted))
    q[:, wanted, range(len(wanted))] = 1
    for panel in reversed(found.panels):
        block = q[:, panel.start :]
        inner = torch.linalg.solve_triangular(panel.t_inverse, panel.v.transpose(1, 2) @ block, upper=True)
        block -= panel.v @ inner
    return q


def _results(
    found: _Elimination, shape: tuple[int, ...], leading: int, trailing: int, known: list[float]
) -> list[RRQR]:
    """One result for each layer, on the CPU; ``known`` is the eps of each weight's values."""
    k = min(shape)
    q = _columns_of_q(found, [*range(leading), *range(k - trailing, k)]).cpu().numpy()
    pivots, diagonal = found.order.cpu().numpy(), torch.cat(found.diagonal, 1).cpu().numpy()
    return [
        assemble(pivots[i], q[i], leading, trailing, numerical_rank(diagonal[i], shape, "float64", known[i]))
        for i in range(len(q))
    ]
