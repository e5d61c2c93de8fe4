"""Pivoted QR of many weights, each found on disk by its hash or decomposed once: a sweep decomposes each weight once.

Factors are stored by the sha256 of everything they depend on and by the number of columns of Q.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from recyclelora.adapters.linalg.blas import Array
from recyclelora.adapters.linalg.factor_cache import FactorCache, byte_view
from recyclelora.adapters.linalg.rrqr import (
    ALGORITHM_VERSION,
    RRQR,
    Precision,
    RankDeficientWarning,
    check_request,
    decompose,
    deficiency_message,
)
from recyclelora.system.cores import available_cores

Weight = Array | torch.Tensor
Progress = Callable[[int, int, str], None]  # (finished layers, all layers, name of the layer just finished)

_COLUMNS = 128  # columns of Q stored at either end, so that a rank sweep finds them all in one file


def factorize(
    weights: Mapping[str, Weight],
    leading: int,
    trailing: int,
    *,
    precision: Precision = "float64",
    strong: float | None = None,
    cache: FactorCache | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, RRQR]:
    """Decompose many weights (out x in, by layer name): see `decompose` for ``precision`` and ``strong``.

    Every layer runs on the CPU in a thread pool, on one BLAS thread.

    The columns of Q come back as float32, as they are stored, so that a hit and a miss give the same bits.

    Raises:
        ValueError: naming the layer, see `decompose`.
    """
    request = _Request(leading, trailing, precision, strong)
    results: dict[str, RRQR] = {}
    # Largest first: no long layer runs alone at the end.
    order = sorted(weights, key=lambda name: -_cost(weights[name]))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(num_threads or available_cores()) as pool:
        futures = {pool.submit(_factor_one, name, weights[name], request, cache): name for name in order}
        try:
            for future in as_completed(futures):
                name = futures[future]
                results[name] = future.result()
                if progress is not None:
                    progress(len(results), len(weights), name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for name, weight in weights.items():
        if results[name].holds_noise(min(weight.shape)):
            message = deficiency_message(name, tuple(weight.shape), results[name].rank)
            warnings.warn(message, RankDeficientWarning, stacklevel=2)
    return {name: results[name] for name in weights}


def weight_key(weight: Weight, precision: Precision, pivoting: str = "") -> str:
    """sha256 (hex) over the weight's bytes, shape and dtype, the precision and the version of the algorithm.

    ``pivoting`` describes any that is not greedy.
    """
    dtype = str(weight.dtype).removeprefix("torch.")
    description = f"{tuple(weight.shape)} {dtype} {precision} v{ALGORITHM_VERSION}{pivoting}"
    digest = hashlib.sha256(description.encode())
    if isinstance(weight, torch.Tensor):
        weight = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    digest.update(byte_view(weight))  # a view: no copy, and hashing releases the GIL
    return digest.hexdigest()


# ---- one request, through the cache ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    """What is asked of every weight."""

    leading: int
    trailing: int
    precision: Precision
    strong: float | None

    def key(self, weight: Weight) -> str:
        """Name of the factors, but for the number of columns."""
        # Strong pivoting depends on the split, so other ranks find nothing in its file.
        strong = "" if self.strong is None else f" strong {self.strong!r} {self.leading} {self.trailing}"
        return weight_key(weight, self.precision, strong)

    def stored(self, shape: tuple[int, ...]) -> _Request:
        """What is computed and stored: also the outer columns that other ranks will ask for."""
        if self.strong is not None:
            return self
        ends, k = _COLUMNS * max(1, -(-max(self.leading, self.trailing) // _COLUMNS)), min(shape)
        outer = (ends, ends) if 2 * ends < k else (k, 0)  # else the whole of Q
        return replace(self, leading=outer[0], trailing=outer[1])

    def unpack(self, tensors: dict[str, Array]) -> RRQR:
        """The asked columns out of the stored tensors."""
        q, pivots, rank = tensors["q"], tensors["pivots"].astype(np.int64), int(tensors["rank"][0])
        k, leading, trailing = min(len(pivots), q.shape[1]), self.leading, self.trailing
        ends = {"leading_pivots": pivots[:leading], "trailing_pivots": pivots[k - trailing : k]}
        ends |= {name: tensors[name].astype(np.int64) for name in ends if name in tensors}
        return RRQR(pivots, q[:leading].T.copy(), q[len(q) - trailing :].T.copy(), rank=rank, **ends)


def _pack(result: RRQR, *, strong: bool) -> dict[str, Array]:
    """Tensors of one file: ``q`` (columns, out) float32, ``pivots`` int32, ``rank``; the ends' own pivots if strong."""
    q = np.concatenate([result.q_leading.T, result.q_trailing.T]).astype(np.float32)
    tensors: dict[str, Array] = {"q": q, "pivots": result.pivots, "rank": np.array([result.rank])}
    if strong:
        tensors |= {"leading_pivots": result.leading_pivots, "trailing_pivots": result.trailing_pivots}
    return {name: value if name == "q" else value.astype(np.int32) for name, value in tensors.items()}


def _factor_one(name: str, weight: Weight, request: _Request, cache: FactorCache | None) -> RRQR:
    """One layer out of the cache, or by LAPACK and into it; without a cache nothing is hashed or added.

    Raises:
        ValueError: naming the layer.
    """
    shape, strong = tuple(weight.shape), request.strong is not None
    try:
        check_request(shape, request.leading, request.trailing)
        if cache is None:
            return request.unpack(_pack(_decompose(weight, request), strong=strong))
        stored = request.stored(shape)
        entry = f"{request.key(weight)}-{stored.leading + stored.trailing}"
        tensors = cache.load(entry)
        if tensors is None:
            tensors = _pack(_decompose(weight, stored), strong=strong)
            cache.store(entry, tensors)
        return request.unpack(tensors)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _decompose(weight: Weight, request: _Request) -> RRQR:
    r = request
    return decompose(_as_float(weight), r.leading, r.trailing, precision=r.precision, strong=r.strong)


def _as_float(weight: Weight) -> Array:
    """As numpy, upcasting what numpy or LAPACK does not know (bfloat16, float16)."""
    if isinstance(weight, torch.Tensor):
        kept = weight.dtype in (torch.float32, torch.float64)
        weight = (weight.detach().cpu() if kept else weight.detach().cpu().float()).numpy()
    return weight if weight.dtype in (np.float32, np.float64) else weight.astype(np.float32)


def _cost(weight: Weight) -> int:
    return int(np.prod(weight.shape)) * min(weight.shape, default=0)
