"""How often races over seeds are wrong, what they find, and for how many runs: beside the fixed three-seed t-test.

    python benchmarks/racing.py            # writes racing.json; simulated scores, two minutes on one core
    python benchmarks/racing.py sweeper    # only the sweeper's own procedure, anew; three minutes

Seventeen candidates and a reference get seeds one at a time. Scores are method + seed + chance, so that all
differences share the reference's chance. Half of the candidates are as good as the reference, the others ``effect``
standard deviations of a paired difference better or worse. ``race``: :mod:`recyclelora.sweep.race.anytime`, a candidate
stops when it is decided, after at most 30 seeds. ``three``: paired t-test after three seeds. ``peeking``: the same
t-test after every seed from the third on, until it says something. All with Holm's procedure at 5 %.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from recyclelora.sweep.race.anytime import ALPHA, log_e
from recyclelora.sweep.race.rules import BEST, Entrant, Race, Standing, judge

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


PLACES = np.array([0.0, 1.0, 0.0, -1.0, 2.0, -2.0])
"""True means in effects, the reference first."""
MODES = {"one reference": ("0",), "two references": ("0", "1"), "best": (BEST,)}
RACES = 250


def raced(race: Race, values: np.ndarray) -> tuple[list[Standing], int]:
    """Run a race on values (entrants, seeds) as the sweeper does; its standings and the number of runs."""
    given = [race.least(len(values))] * len(values)
    while True:
        entrants = [
            Entrant(str(i), tuple(row[:n]), reference=str(i) in race.references)
            for i, (row, n) in enumerate(zip(values, given, strict=True))
        ]
        standings = judge(race, entrants)
        more = [
            i for i, s in enumerate(standings)
            if given[i] < race.seeds and any(given[i] <= given[j] for j in s.waits_for)
        ]  # fmt: skip
        if not more:
            return standings, sum(given)
        for i in more:
            given[i] += 1


def claims(standings: list[Standing], means: np.ndarray) -> tuple[int, int, int]:
    """(false claims, true claims, claims that could be made) of a race."""
    wrong = right = possible = 0
    for i, standing in enumerate(standings):
        if standing.won or standing.lost_to is not None:
            true = means[i] == means.max() and (means == means.max()).sum() == 1
            if standing.lost_to is not None:
                true = means[i] < means[int(standing.lost_to)]
            wrong, right = wrong + (not true), right + bool(true)
            possible += 1
            continue
        for name, decision in standing.against.items():
            gap = np.sign(means[i] - means[int(name)])
            possible += gap != 0
            if decision.verdict != "undecided":
                true = gap == (1 if decision.verdict == "better" else -1)
                wrong, right = wrong + (not true), right + bool(true)
    return wrong, right, possible


def sweeper(kind: str, effect: float, mode: str, seed: int) -> dict[str, float]:
    """Error, power and runs of the sweeper's procedure."""
    rng = np.random.default_rng(seed)
    race = Race(MODES[mode], "objective", ALPHA, 20)
    means = np.sqrt(2) * effect * PLACES
    false, right, possible, runs = 0, 0, 0, 0
    for _ in range(RACES):
        standings, count = raced(race, CHANCE[kind](rng, (len(means), race.seeds)) + means[:, None])
        wrong, good, could = claims(standings, means)
        false, right, possible, runs = false + (wrong > 0), right + good, possible + could, runs + count
    return {
        "any_false_claim": round(false / RACES, 4),
        "power": round(right / possible, 4) if possible else 0.0,
        "runs": round(runs / RACES, 1),
    }


def simulate_sweeper() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Of every kind of chance, effect and way to race."""
    found = {
        kind: {str(effect): {mode: sweeper(kind, effect, mode, seed=n) for mode in MODES} for effect in (0.0, 1.0, 2.0)}
        for n, kind in enumerate(CHANCE)
    }
    for kind, effects in found.items():
        for effect, modes in effects.items():
            print(kind, effect, modes)
    return found


def main() -> None:
    """Simulate all, print and write."""
    path = Path(__file__).with_suffix(".json")
    if sys.argv[1:] == ["sweeper"]:
        content = json.loads(path.read_text()) | {"sweeper": {"races": RACES, "results": simulate_sweeper()}}
        path.write_text(json.dumps(content, indent=1) + "\n")
        return
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
    own = {"races": RACES, "results": simulate_sweeper()}
    path.write_text(json.dumps({"setting": about, "results": results, "sweeper": own}, indent=1) + "\n")


if __name__ == "__main__":
    main()
