"""Factors of pretrained weights, kept on disk by weight hash: a sweep decomposes each weight once.

One safetensors file per weight, named by the sha256 of everything the factors depend on and by the number of columns
of Q in it. Many processes may share the folder: files appear atomically and a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
from threadpoolctl import threadpool_limits

from recyclelora.adapters.blas import Array
from recyclelora.adapters.rrqr import (
    ALGORITHM_VERSION,
    RRQR,
    Precision,
    RankDeficientWarning,
    check_request,
    decompose,
    deficiency_message,
)

Weight = Array | torch.Tensor
Progress = Callable[[int, int, str], None]  # (finished layers, all layers, name of the layer just finished)

_COLUMNS = 128  # columns of Q stored at either end, so that a rank sweep finds them all in one file
_ABANDONED = 3600  # seconds after which a temporary file belongs to a process that died


@dataclass(frozen=True)
class FactorCache:
    """A folder of factors, bounded in size; the least recently used files leave first.

    Attributes:
        directory: where the files lie (created when needed); None switches the cache off.
        max_bytes: upper bound on the size of all files together.
    """

    directory: Path | None
    max_bytes: int = 4 * 2**30

    def load(self, key: str, columns: int) -> dict[str, Array] | None:
        """The stored tensors, or None where there is no intact file; marks the file as used."""
        if self.directory is None:
            return None
        path = self._path(key, columns)
        try:
            tensors = safetensors.numpy.load(path.read_bytes())
            if _digest(tensors) != tensors["digest"].tobytes():
                return None
            os.utime(path)
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            return None
        return tensors

    def store(self, key: str, tensors: dict[str, Array]) -> None:
        """Write one file atomically, then keep the folder within its bound; a full disk costs only the caching."""
        if self.directory is None:
            return
        digest = np.frombuffer(_digest(tensors), dtype=np.uint8)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _write_atomically(self._path(key, len(tensors["q"])), safetensors.numpy.save({**tensors, "digest": digest}))
            self._evict()
        except OSError as error:
            warnings.warn(f"factor cache {self.directory}: not written ({error})", stacklevel=2)

    def _path(self, key: str, columns: int) -> Path:
        assert self.directory is not None
        return self.directory / f"{key}-{columns}.safetensors"

    def _evict(self) -> None:
        """Delete abandoned temporary files, then the least recently used factors until the bound holds."""
        assert self.directory is not None
        files = []
        for path in self.directory.iterdir():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process evicted it
            if path.suffix == ".tmp" and status.st_mtime < time.time() - _ABANDONED:
                path.unlink(missing_ok=True)
            elif path.suffix == ".safetensors":
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def factorize(
    weights: Mapping[str, Weight],
    leading: int,
    trailing: int,
    *,
    precision: Precision = "float64",
    cache: FactorCache | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, RRQR]:
    """Decompose many weights (out x in, by layer name) in a thread pool, each on one BLAS thread.

    The columns of Q come back as float32, as they are stored, so that a hit and a miss give the same bits.

    Raises:
        ValueError: naming the layer, see `decompose`.
    """
    results: dict[str, RRQR] = {}
    order = sorted(
        weights, key=lambda name: -_cost(weights[name])
    )  # largest first: no long layer runs alone at the end
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(num_threads or available_cores()) as pool:
        futures = {
            pool.submit(
                _factor_one, name, weights[name], leading, trailing, precision, cache or FactorCache(None)
            ): name
            for name in order
        }
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                if progress is not None:
                    progress(len(results), len(futures), futures[future])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for name, weight in weights.items():
        if trailing and results[name].rank < min(weight.shape):
            message = deficiency_message(name, tuple(weight.shape), results[name].rank)
            warnings.warn(message, RankDeficientWarning, stacklevel=2)
    return {name: results[name] for name in weights}


def available_cores() -> int:
    """Cores this process may use (a container or SLURM may grant fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def weight_key(weight: Weight, precision: Precision) -> str:
    """sha256 (hex) over the weight's bytes, shape and dtype, the precision and the version of the algorithm."""
    dtype = str(weight.dtype).removeprefix("torch.")
    digest = hashlib.sha256(f"{tuple(weight.shape)} {dtype} {precision} v{ALGORITHM_VERSION}".encode())
    if isinstance(weight, torch.Tensor):
        weight = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    digest.update(_buffer(weight))  # a view: no copy, and hashing releases the GIL
    return digest.hexdigest()


def _factor_one(
    name: str, weight: Weight, leading: int, trailing: int, precision: Precision, cache: FactorCache
) -> RRQR:
    """One layer from the cache or by decomposition; errors carry the layer's name."""
    try:
        check_request(tuple(weight.shape), leading, trailing)
        if cache.directory is None:
            return _as_stored(decompose(_as_float(weight), leading, trailing, precision=precision))
        return _through_cache(weight, leading, trailing, precision, cache)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _through_cache(weight: Weight, leading: int, trailing: int, precision: Precision, cache: FactorCache) -> RRQR:
    """Look the factors up, or compute and store the outer columns that other ranks will ask for too."""
    key, k = weight_key(weight, precision), min(weight.shape)
    ends = _COLUMNS * max(1, -(-max(leading, trailing) // _COLUMNS))
    columns = min(2 * ends, k)  # k: the whole of Q
    tensors = cache.load(key, columns)
    if tensors is None:
        outer = (ends, ends) if columns < k else (k, 0)
        result = decompose(_as_float(weight), *outer, precision=precision)
        tensors = _pack(result)
        cache.store(key, tensors)
    return _unpack(tensors, leading, trailing)


def _pack(result: RRQR) -> dict[str, Array]:
    """Tensors of one file: ``q`` (columns, out) float32, ``pivots`` int32, ``rank``."""
    q = np.concatenate([result.q_leading.T, result.q_trailing.T]).astype(np.float32)
    return {"q": q, "pivots": result.pivots.astype(np.int32), "rank": np.array([result.rank], dtype=np.int32)}


def _unpack(tensors: dict[str, Array], leading: int, trailing: int) -> RRQR:
    q = tensors["q"]
    outer = q[:leading].T.copy(), q[len(q) - trailing :].T.copy()
    return RRQR(tensors["pivots"].astype(np.int64), *outer, rank=int(tensors["rank"][0]))


def _as_stored(result: RRQR) -> RRQR:
    outer = result.q_leading.astype(np.float32), result.q_trailing.astype(np.float32)
    return RRQR(result.pivots, *outer, rank=result.rank)


def _digest(tensors: dict[str, Array]) -> bytes:
    """Checksum of the contents: safetensors itself notices truncation but not changed bytes."""
    digest = hashlib.sha256()
    for name in ("q", "pivots", "rank"):
        digest.update(_buffer(tensors[name]))
    return digest.digest()


def _buffer(array: Array) -> memoryview:
    """The array's bytes, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_atomically(path: Path, content: bytes) -> None:
    """Other processes see the whole file or none of it, even after a power cut."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _as_float(weight: Weight) -> Array:
    """As numpy, upcasting what numpy or LAPACK does not know (bfloat16, float16)."""
    if isinstance(weight, torch.Tensor):
        kept = weight.dtype in (torch.float32, torch.float64)
        weight = (weight.detach().cpu() if kept else weight.detach().cpu().float()).numpy()
    return weight if weight.dtype in (np.float32, np.float64) else weight.astype(np.float32)


def _cost(weight: Weight) -> int:
    return int(np.prod(weight.shape)) * min(weight.shape, default=0)
