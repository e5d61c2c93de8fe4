"""Time of every initialisation on all linear layers of a ViT, beside the usual way. Writes initialisations.json.

    .venv/bin/python benchmarks/initialisations.py                 # about 12 minutes on one core
    .venv/bin/python benchmarks/initialisations.py --small         # one block of ViT-S, nothing written

CPU seconds on one BLAS thread. Every way initialises the same matrices, in turns; a model's four layer shapes are
timed with `repeats` different matrices each, and the mean is multiplied by the number of blocks. The weights are those
of rrqr.py: Gaussian columns whose norms are spread over a factor e. Ranks: 16 for the SVD initialisations and OLoRA,
4 major and 32 minor for RRQR, in one decomposition.

The usual ways are a whole decomposition by scipy, in float32 as the published codes do and in float64 as this project
does: ``svd(full_matrices=False)`` for PiSSA, MiLoRA, SoMA and MiCA, ``qr(mode="economic")`` for OLoRA, and
``qr(mode="economic", pivoting=True)`` for RRQR, once for each adapter as in the authors' code. The times are of a
decomposition and the factors made of it, without a cache. ViT-g is timed for RRQR alone, by rrqr.py too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from rrqr import LEADING, MODELS, TRAILING, machine, published, random_weight, shapes
from threadpoolctl import threadpool_limits

from recyclelora.adapters.linalg.rrqr import decompose
from recyclelora.adapters.low_rank.factors import LayerWeight, branch_rng
from recyclelora.adapters.low_rank.inits import INITIALIZERS

RANK = 16
Way = Callable[[np.ndarray], object]


def usual(function: Callable[..., object], dtype: str, **options: object) -> Way:
    """A whole decomposition by scipy."""
    return lambda weight: function(weight.astype(dtype), **options)


def project(name: str) -> Way:
    """One initialisation of this project, at rank 16."""

    def run(weight: np.ndarray) -> None:
        layer = LayerWeight(torch.from_numpy(weight), 1.0)
        INITIALIZERS[name](layer, RANK, branch_rng(0, "layer", "main"))

    return run


def recyclelora(values: str = "", strong: float | None = None) -> Way:
    """Both branches of RecycleLoRA from one decomposition."""

    def run(weight: np.ndarray) -> None:
        found = decompose(weight, LEADING, TRAILING, strong=strong)
        layer = LayerWeight(torch.from_numpy(weight), 1.0, found)
        for name, rank in (("rrqr_minor", TRAILING), ("rrqr_major", LEADING)):
            INITIALIZERS[name + values](layer, rank, branch_rng(0, "layer", name))

    return run


RRQR: dict[str, Way] = {
    "usual rrqr float32": published("float32"),
    "usual rrqr float64": published("float64"),
    "rrqr": recyclelora(),
    "rrqr_values": recyclelora("_values"),
    "rrqr strong f=2": recyclelora(strong=2.0),
    "rrqr strong f=1": recyclelora(strong=1.0),
}
OTHERS: dict[str, Way] = {
    "usual svd float32": usual(scipy.linalg.svd, "float32", full_matrices=False),
    "usual svd float64": usual(scipy.linalg.svd, "float64", full_matrices=False),
    "usual qr float32": usual(scipy.linalg.qr, "float32", mode="economic"),
    "usual qr float64": usual(scipy.linalg.qr, "float64", mode="economic"),
} | {name: project(name) for name in INITIALIZERS if not name.startswith("rrqr")}


def usual_way(name: str) -> str:
    """The float32 way that a figure is compared with."""
    family = "rrqr" if "rrqr" in name else "svd" if "svd" in name else "qr"
    return f"usual {family} float32"


def time_model(model: str, repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds for a whole model by way, and as a share of the usual way."""
    ways = RRQR if model == "g" else RRQR | OTHERS
    spent: dict[str, list[float]] = {name: [0.0] * repeats for name in ways}
    for repeat in range(repeats):
        for index, shape in enumerate(shapes(model).values()):
            weight = random_weight(shape, 1.0, seed=100 * repeat + index)
            for name, run in ways.items():
                started = time.process_time()
                run(weight)
                spent[name][repeat] += time.process_time() - started
    seconds = {name: MODELS[model][1] * statistics.mean(values) for name, values in spent.items()}
    drawn = ("kaiming", "gaussian", "orthogonal", "orthonormal")  # the others decompose something
    shares = {name: seconds[name] / seconds[usual_way(name)] for name in ways if name not in drawn}
    return {"cpu_seconds": seconds, "share_of_usual_float32": shares}


def main() -> None:
    """Time, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=2, help="blocks timed per model")
    parser.add_argument("--small", action="store_true", help="one block of ViT-S, once: does the script work?")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.small:
        options.models, options.repeats = ["S"], 1
    result: dict[str, object] = {"machine": machine(), "note": __doc__, "rank": RANK, "blocks_timed": options.repeats}
    with threadpool_limits(1):
        for way in (RRQR | OTHERS).values():
            way(random_weight((64, 48), 1.0, 0))  # load every library before the first clock starts
        for model in options.models:
            timing = time_model(model, options.repeats)
            result[f"vit_{model}"] = timing
            print(f"ViT-{model}")
            for name, seconds in timing["cpu_seconds"].items():
                share = timing["share_of_usual_float32"].get(name)
                print(f"  {name:20} {seconds:8.2f} s CPU" + (f"  {share:6.3f} of the usual way" if share else ""))
    if not options.small:
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
