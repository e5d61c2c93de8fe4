"""What bounds the pivoted QR in float64: where its CPU time goes, beside what the processor gives at best.

    python benchmarks/rrqr_bound.py        # writes the entry "bound" of rrqr.json; one thread, a minute

The products with all columns behind a panel do most of the arithmetic and move most of the memory: their rates stand
beside those of a large matrix product and of a copy of 256 MiB.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rrqr import LEADING, TRAILING, random_weight, shapes
from threadpoolctl import threadpool_limits

from recyclelora.adapters.linalg import pivoting
from recyclelora.adapters.linalg.rrqr import decompose

PARTS = {
    "_apply_to_rest": "products_with_the_rest", "_reflect": "factoring_panels", "_eliminate_rest": "last_steps",
    "_start": "copying_in",
}  # fmt: skip
TURNS = 7


def timed(part: str, spent: dict[str, float], moved: dict[str, float]) -> Callable[..., object]:
    """A function of the elimination that adds up its seconds, and the work of the products."""
    function = getattr(pivoting, part)

    def call(work: pivoting.Elimination, *others: object) -> object:
        began = time.process_time()
        found = function(work, *others)
        spent[part] = spent.get(part, 0.0) + time.process_time() - began
        if part == "_apply_to_rest":
            count = others[0].v.shape[1]
            elements = work.residual.shape[0] * (work.residual.shape[1] - work.done - count)
            moved["flop"] = moved.get("flop", 0.0) + 4 * elements * count  # V^T rest, and rest -= V (...)
            moved["bytes"] = moved.get("bytes", 0.0) + 3 * 8 * elements  # read, read and written
        return found

    return call


def best(run: Callable[[], object], turns: int = TURNS) -> float:
    """The least CPU seconds of several turns."""
    seconds = []
    for _ in range(turns):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


def layer(weight: np.ndarray) -> dict[str, object]:
    """Milliseconds of one layer, shares of its parts and rates of its products, in the best of several turns."""
    least: dict[str, object] = {}
    functions = {part: getattr(pivoting, part) for part in PARTS}
    for _ in range(TURNS):
        spent: dict[str, float] = {}
        moved: dict[str, float] = {}
        for part in PARTS:
            setattr(pivoting, part, timed(part, spent, moved))
        try:
            total = best(lambda: decompose(weight, LEADING, TRAILING), 1)
        finally:
            for part, function in functions.items():
                setattr(pivoting, part, function)
        if not least or 1e3 * total < least["milliseconds"]:
            seconds = spent["_apply_to_rest"]
            least = {
                "milliseconds": round(1e3 * total, 2),
                "shares": {name: round(spent.get(part, 0.0) / total, 2) for part, name in PARTS.items()},
                "products_gflop_per_second": round(moved["flop"] / seconds / 1e9, 1),
                "products_gb_per_second": round(moved["bytes"] / seconds / 1e9, 1),
            }
    return least


def main() -> None:
    with threadpool_limits(1):
        large = np.random.default_rng(0).standard_normal((1024, 1024))
        block = np.zeros(2**25)
        target = np.zeros(2**25)
        bound: dict[str, object] = {
            "load": round(os.getloadavg()[0], 1),
            "matrix_product_gflop_per_second": round(2 * 1024**3 / best(lambda: large @ large) / 1e9, 1),
            "copy_gb_per_second": round(2 * block.nbytes / best(lambda: np.copyto(target, block)) / 1e9, 1),
        }
        for model in "SBL":
            bound[f"vit_{model}"] = {
                name: layer(random_weight(shape, 1.0, seed)) for seed, (name, shape) in enumerate(shapes(model).items())
            }
    path = Path(__file__).with_name("rrqr.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bound": bound}, indent=2) + "\n")
    print(json.dumps(bound, indent=2))


if __name__ == "__main__":
    main()
