"""How often races over seeds are wrong, what they find, and for how many runs: beside the fixed three-seed t-test.

    python benchmarks/racing.py        # writes racing.json; simulated scores, two minutes on one core

Seventeen candidates and a reference get seeds one at a time. Scores are method + seed + chance, so that all
differences share the reference's chance. Half of the candidates are as good as the reference, the others ``effect``
standard deviations of a paired difference better or worse. ``race``: :mod:`recyclelora.sweep.anytime`, a candidate
stops when it is decided, after at most 30 seeds. ``three``: paired t-test after three seeds. ``peeking``: the same
t-test after every seed from the third on, until it says something. All with Holm's procedure at 5 %.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from recyclelora.sweep.anytime import ALPHA, log_e

CANDIDATES, SEEDS, STUDIES = 17, 30, 4000
EFFECTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def collapsing(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, but one run in twenty collapses."""
    return rng.standard_normal(shape) - 10 * (rng.random(shape) < 0.05)


CHANCE: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t with 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3),
    "log-normal": lambda rng, shape: rng.lognormal(0, 1, shape) / 2.161,
    "collapsing": lambda rng, shape: collapsing(rng, shape) / 2.4,
}
"""Of a run, with a standard deviation of about 1."""


def holm_rejects(p: np.ndarray) -> np.ndarray:
    """Which hypotheses Holm's procedure refuses, (..., K) from p values (..., K)."""
    order = np.argsort(p, -1)
    levels = ALPHA / np.arange(p.shape[-1], 0, -1)
    ranked = np.logical_and.accumulate(np.take_along_axis(p, order, -1) <= levels, -1)
    refused = np.zeros_like(ranked)
    np.put_along_axis(refused, order, ranked, -1)
    return refused


def t_p(differences: np.ndarray, n: int) -> np.ndarray:
    """Two-sided p of the paired t-test after n seeds."""
    return stats.ttest_1samp(differences[..., :n], 0.0, axis=-1).pvalue


def study(kind: str, effect: float, studies: int, seed: int) -> dict[str, dict[str, float]]:
    """Error, power and runs of the three ways, over simulated studies."""
    rng = np.random.default_rng(seed)
    sign = np.where(np.arange(CANDIDATES) % 4 == 1, 1.0, -1.0) * (np.arange(CANDIDATES) % 2)
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(0, studies, 500):
        runs = CHANCE[kind](rng, (500, CANDIDATES + 1, SEEDS))
        differences = runs[:, 1:] - runs[:, :1] + (np.sqrt(2) * effect * sign)[:, None]
        p = np.exp(-np.maximum.accumulate(log_e(differences), -1))
        race = holm_rejects(np.minimum(p, 1.0).transpose(0, 2, 1))  # (studies, seeds, candidates)
        peeks = np.stack([holm_rejects(t_p(differences, n)) for n in range(3, SEEDS + 1)], 1)
        for name, refused, first in (("race", race, 1), ("three", peeks[:, :1], 3), ("peeking", peeks, 3)):
            ever, at = refused.any(1), first + refused.argmax(1)
            took = np.where(ever, at, first + refused.shape[1] - 1)
            claimed = np.sign(np.take_along_axis(np.cumsum(differences, -1), took[..., None] - 1, -1)[..., 0])
            wrong = ever & (claimed != np.where(effect, sign, 0.0))
            right = ever & ~wrong
            per_study = np.stack(
                [
                    wrong.any(1),
                    right[:, sign != 0].mean(1) if effect else np.zeros(500),
                    took[:, sign != 0].mean(1),
                    took.sum(1) + took.max(1),
                ]
            )
            found.setdefault(name, []).append(per_study)
    names = ("any_false_claim", "power", "seeds_of_a_different_one", "runs")
    return {
        name: dict(zip(names, np.concatenate(parts, 1).mean(1).round(4).tolist(), strict=True))
        for name, parts in found.items()
    }


def main() -> None:
    """Simulate all, print and write."""
    results = {
        kind: {str(effect): study(kind, effect, STUDIES, seed=number) for effect in EFFECTS}
        for number, kind in enumerate(CHANCE)
    }
    for kind, effects in results.items():
        print(f"{kind}\n  effect  " + "  ".join(f"{way:>24}" for way in ("race", "three", "peeking")))
        for effect, ways in effects.items():
            cells = [
                f"{w['any_false_claim']:6.1%} {w['power']:6.1%} {w['seeds_of_a_different_one']:5.1f}"
                for w in ways.values()
            ]
            print(f"  {effect:>6}  " + "  ".join(f"{cell:>24}" for cell in cells))
    about = {"studies": STUDIES, "candidates": CANDIDATES, "most_seeds": SEEDS, "python": platform.python_version()}
    content = json.dumps({"setting": about, "results": results}, indent=1)
    Path(__file__).with_suffix(".json").write_text(content + "\n")


if __name__ == "__main__":
    main()
