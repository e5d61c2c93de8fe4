"""Pivoted QR of all linear layers of a ViT: the published way, this project's, and its cache. Writes rrqr.json.

    .venv/bin/python benchmarks/rrqr.py                     # about 7 minutes on one core
    .venv/bin/python benchmarks/rrqr.py --models S B --repeats 3 --no-cache      # again, the rest of the file stays

Every way decomposes the same matrices, in turns, on one BLAS thread. Each model's four layer shapes are timed with
`repeats` different matrices and the mean is multiplied by the number of blocks; the run from the cache is measured
on all layers of a whole ViT-L. The weights are random: Gaussian columns with norms spread log-uniformly over a factor
`exp(spread)`: the median factor over the 72 weights of a trained DINOv2 ViT-S is exp(0.99). Equal norms (spread 0) are
the hardest case for the lazy norms.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.linalg.factorize import factorize
from recyclelora.adapters.linalg.rrqr import decompose
from recyclelora.system.cores import available_cores

LEADING, TRAILING = 4, 32
MODELS = {"S": (384, 12), "B": (768, 12), "L": (1024, 24), "g": (1536, 40)}  # width, blocks


def shapes(model: str) -> dict[str, tuple[int, int]]:
    """(out, in) of the four linear layers of a block; ViT-g has SwiGLU."""
    width, _ = MODELS[model]
    attention = {"qkv": (3 * width, width), "proj": (width, width)}
    if model == "g":
        return attention | {"w12": (8192, width), "w3": (width, 4096)}
    return attention | {"fc1": (4 * width, width), "fc2": (width, 4 * width)}


def random_weight(shape: tuple[int, int], spread: float, seed: int) -> np.ndarray:
    """Gaussian columns (out, in) float32 whose norms are spread over a factor exp(spread)."""
    rng = np.random.default_rng(seed)
    norms = np.exp(-spread * rng.random(shape[1], dtype=np.float32))
    return rng.standard_normal(shape, dtype=np.float32) * norms


def published(dtype: str) -> Callable[[np.ndarray], None]:
    """The authors' code decomposes once for each adapter."""

    def run(weight: np.ndarray) -> None:
        for _ in range(2):
            q, _, pivots = scipy.linalg.qr(weight.astype(dtype), mode="economic", pivoting=True)
            assert q.shape[1] == min(weight.shape) <= len(pivots)

    return run


WAYS: dict[str, Callable[[np.ndarray], object]] = {
    "published_float32": published("float32"),
    "published_float64": published("float64"),
    "project_float64": lambda weight: decompose(weight, LEADING, TRAILING),
    "project_float32": lambda weight: decompose(weight, LEADING, TRAILING, precision="float32"),
}


def time_model(model: str, spread: float, repeats: int) -> dict[str, object]:
    """Seconds per way for a whole model: CPU and wall, extrapolated from ``repeats`` blocks."""
    _, blocks = MODELS[model]
    cpu: dict[str, list[float]] = {way: [0.0] * repeats for way in WAYS}
    wall: dict[str, list[float]] = {way: [0.0] * repeats for way in WAYS}
    layers: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for repeat in range(repeats):
        for index, (layer, shape) in enumerate(shapes(model).items()):
            weight = random_weight(shape, spread, seed=100 * repeat + index)
            for way, run in WAYS.items():
                cpu_start, wall_start = time.process_time(), time.perf_counter()
                run(weight)
                spent = time.process_time() - cpu_start
                cpu[way][repeat] += spent
                wall[way][repeat] += time.perf_counter() - wall_start
                layers[way][layer] = layers[way].get(layer, 0.0) + spent / repeats
    seconds = {way: blocks * statistics.mean(values) for way, values in cpu.items()}
    return {
        "cpu_seconds": seconds,
        "wall_seconds": {way: blocks * statistics.mean(values) for way, values in wall.items()},
        "cpu_seconds_of_each_block": cpu,
        "cpu_seconds_per_layer": layers,
        "share_of_published_float32": {way: value / seconds["published_float32"] for way, value in seconds.items()},
        "blocks_timed": repeats,
        "blocks_in_model": blocks,
    }


def time_cache(spread: float) -> dict[str, float]:
    """A whole ViT-L, 96 different layers: decomposed and stored, then found again (hash, read, check); wall seconds."""
    weights = {
        f"blocks.{block}.{layer}": random_weight(shape, spread, seed=1000 + 4 * block + index)
        for block in range(MODELS["L"][1])
        for index, (layer, shape) in enumerate(shapes("L").items())
    }
    with tempfile.TemporaryDirectory() as directory:
        cache = FactorCache(Path(directory))
        started = time.perf_counter()
        factorize(weights, LEADING, TRAILING, cache=cache)
        first = time.perf_counter() - started
        again, one_thread = [], []
        for _ in range(3):
            for threads, seconds in ((None, again), (1, one_thread)):
                started = time.perf_counter()
                factorize(weights, LEADING, TRAILING, cache=cache, num_threads=threads)
                seconds.append(time.perf_counter() - started)
        size = sum(path.stat().st_size for path in Path(directory).iterdir())
    return {
        "layers": len(weights),
        "threads": available_cores(),
        "first_run_wall_seconds": first,
        "second_run_wall_seconds": min(again),
        "second_run_one_thread_wall_seconds": min(one_thread),
        "mebibytes_on_disk": size / 2**20,
    }


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    blas = sorted(
        {f"{lib.get('internal_api')} {lib.get('version')} {lib.get('architecture')}" for lib in threadpool_info()}
    )
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": blas,
        "blas_threads": 1,
    }


def main() -> None:
    """Time, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=2, help="blocks timed per model")
    parser.add_argument("--spreads", nargs="+", type=float, default=[1.0, 0.0])
    parser.add_argument("--no-cache", action="store_true", help="leave out the whole ViT-L through the cache")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    result: dict[str, object] = {"machine": machine(), "leading": LEADING, "trailing": TRAILING, "note": __doc__}
    with threadpool_limits(1):
        for spread in options.spreads:
            for model in options.models:
                timing = time_model(model, spread, options.repeats)
                result[f"vit_{model}_spread_{spread:g}"] = timing
                print(f"ViT-{model}, spread {spread:g}")
                for way, share in timing["share_of_published_float32"].items():
                    print(f"  {way:18} {timing['cpu_seconds'][way]:8.2f} s CPU  {share:6.3f} of published", flush=True)
    if not options.no_cache:
        result["cache_vit_L"] = time_cache(options.spreads[0])
        print(json.dumps(result["cache_vit_L"], indent=2))
    stored = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.write_text(json.dumps(stored | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
