"""What pausing wins: recorded learning curves replayed through the sweep's own driver. Writes multi_fidelity.json.

    python benchmarks/multi_fidelity.py                                  # records small networks first; minutes
    python benchmarks/multi_fidelity.py --sweep outputs/sweeps/<study> --first 6    # those of a finished sweep

The curves are those of 200 small networks (one hidden layer, AdamW, linear decay of the learning rate over 81 steps) on
scikit-learn's 8x8 digits at random learning rates, weight decays, widths, batch sizes and dropouts: real training, but
no segmentation. A sweep whose every trial was evaluated at the rungs, and on the way, gives the curves of segmentation:
``multi_fidelity-streets.json`` is of RecycleLoRA on the built-in streets at random rates, scales and weight decays,

    python train.py -m experiment=study hydra/sweeper/sampler=random n_trials=200 seed=10 \\
        hydra.launcher.in_process=true 'data.targets=[]' data.source_val.subset=20 'data.protocol.half=[streets]' \\
        'data.augment.crop=[112,112]' trainer.max_steps=54 trainer.eval_every=6 trainer.batch_size=2 \\
        study=curves 'optimizer.lr=tag(log,interval(1e-5,3e-2))' 'decoder.lr_mult=tag(log,interval(0.1,30))' \\
        'adapter.alpha=tag(log,interval(0.1,36))' 'optimizer.weight_decay=tag(log,interval(1e-3,1))'

and its ``real_sweep`` (``--paused outputs/sweeps/paused``) is the same command with ``n_trials=45 study=paused
hydra/sweeper/pruner=asha hydra.sweeper.pruner.min_resource=6``.

Five orders of the same configurations under each algorithm, four trials at a time. Regret is how far the best finished
trial is behind the best one of all, after so many steps of training in all trials together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, json_to_distribution

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "tests/support"))

from replaying import Curve, Replay, replay  # noqa: E402

from recyclelora.runs.unit import read_reports  # noqa: E402
from recyclelora.sweep.ledger import COMPLETE, Ledger  # noqa: E402
from recyclelora.sweep.planning import Plan  # noqa: E402
from recyclelora.sweep.rungs import Rungs  # noqa: E402
from recyclelora.sweep.space import Space  # noqa: E402

AT_ONCE, STEPS, EVERY = 4, 81, 9
SPACE = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "weight_decay": FloatDistribution(1e-4, 1.0, log=True),
    "width": FloatDistribution(4, 256, log=True),
    "batch": FloatDistribution(4, 256, log=True),
    "dropout": FloatDistribution(0.0, 0.8),
}
SHARES = (1 / 27, 1 / 9, 1 / 3, 1)
"""Of the steps of training everything to the end."""


@dataclass
class Recorded:
    """Learning curves of configurations, and what they vary."""

    origin: str
    space: dict[str, FloatDistribution]
    params: list[dict[str, float]]
    curves: list[Curve]

    @property
    def length(self) -> int:
        """Steps of a schedule."""
        return max(self.curves[0])

    @property
    def best(self) -> float:
        """The highest final value."""
        return max(curve[self.length] for curve in self.curves)


def record(configurations: int) -> Recorded:
    """Train small networks."""
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:1000], order[1000:]
    draw = random.Random(0)
    found = Recorded("small networks on scikit-learn's digits", SPACE, [], [])
    for seed in range(configurations):
        p = {name: _uniform(d, draw.random()) for name, d in SPACE.items()}
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(64, round(p["width"])), torch.nn.ReLU(), torch.nn.Dropout(p["dropout"]),
            torch.nn.Linear(round(p["width"]), 10),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(net.parameters(), lr=p["lr"], weight_decay=p["weight_decay"])
        curve: dict[int, float] = {}
        for step in range(1, STEPS + 1):
            optimizer.param_groups[0]["lr"] = p["lr"] * (1 - (step - 1) / STEPS)
            batch = train[torch.randint(len(train), (round(p["batch"]),))]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
            if step % EVERY == 0 or step == EVERY // 3:
                net.eval()
                with torch.no_grad():
                    curve[step] = float((net(images[test]).argmax(1) == labels[test]).float().mean())
                net.train()
        found.params.append(p)
        found.curves.append(curve)
    return found


def _uniform(d: FloatDistribution, share: float) -> float:
    low, high = (np.log(d.low), np.log(d.high)) if d.log else (d.low, d.high)
    value = low + share * (high - low)
    return float(np.exp(value) if d.log else value)


def _share(d: FloatDistribution, value: float) -> float:
    low, high, at = (np.log(d.low), np.log(d.high), np.log(value)) if d.log else (d.low, d.high, value)
    return float((at - low) / (high - low))


def read_sweep(folder: Path) -> Recorded:
    """The curves of a sweep's finished trials, by what they have reported; it varies intervals."""
    trials = [t for t in Ledger(folder).trials() if t.state == COMPLETE and not t.confirms]
    space = {key: json_to_distribution(text) for key, text in trials[0].distributions.items()}
    curves = [dict(read_reports(trial.unit_folder(0))) for trial in trials]
    whole = [i for i, curve in enumerate(curves) if curve.keys() == curves[0].keys()]
    return Recorded(folder.name, space, [trials[i].params for i in whole], [curves[i] for i in whole])


class Nearest:
    """Gives a proposal the curve of the nearest configuration that none has taken yet."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.places = np.array([[_share(d, p[k]) for k, d in recorded.space.items()] for p in recorded.params])
        self.taken: dict[tuple[str, ...], int] = {}

    def __call__(self, overrides: Sequence[str]) -> Curve:
        """The curve of a unit's overrides."""
        if tuple(overrides) not in self.taken:
            asked = dict(text.split("=") for text in overrides)
            place = np.array([_share(d, float(asked[k])) for k, d in self.recorded.space.items()])
            far = ((self.places - place) ** 2).sum(1)
            far[list(self.taken.values())] = np.inf
            self.taken[tuple(overrides)] = int(far.argmin())
        return self.recorded.curves[self.taken[tuple(overrides)]]


def play(recorded: Recorded, way: str, order: int, first: int) -> list[tuple[int, float]]:
    """(Steps so far, regret) at the end of each trial, under one algorithm in one order; pauses from ``first`` on."""
    # evaluations that an algorithm does not use are left out, which changes nothing but the time that the replay takes
    count = len(recorded.curves)
    rungs = Rungs.of(
        {"kind": "hyperband" if "hyperband" in way else "asha", "min_resource": first, "max_resource": "auto",
         "reduction_factor": 3}, recorded.length,
    ) if way.startswith(("asha", "hyperband")) else None  # fmt: skip
    pruner = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=5),
        "successive halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3),
    }.get(way)
    if way.endswith("tpe"):
        space, planned = Space(dict(recorded.space), list(recorded.space), {}), []
        curve_of = Nearest(recorded)
        sampler = lambda number: optuna.samplers.TPESampler(seed=1000 * order + number, constant_liar=True)  # noqa: E731
    else:
        numbers = random.Random(order).sample(range(count), count)
        space = Space({"c": CategoricalDistribution(numbers)}, ["c"], {})
        planned, sampler = [{"c": number} for number in numbers], None
        curve_of = lambda overrides: recorded.curves[int(overrides[0].removeprefix("c="))]  # noqa: E731
    plan = Plan(
        space, count, planned, sampler, prunes=pruner is not None, rungs=rungs,
        learns_from=10 if rungs is not None and sampler is not None else None,
    )  # fmt: skip
    looks = set(rungs.steps) if rungs is not None else set(recorded.curves[0]) if way == "median" else set()
    if way == "successive halving":
        looks = {first * 3**k for k in range(10)}
    looks.add(recorded.length)
    executor = Replay(lambda o: {step: value for step, value in curve_of(o).items() if step in looks}, AT_ONCE)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        driver = replay(Path(folder) / "sweep", plan, executor, pruner)
        if driver.stop is not None:  # a signal, which a driver takes as the wish that it end
            sys.exit(128 + driver.stop)
        finals = {t.number: t.values[0] for t in Ledger(Path(folder) / "sweep").trials() if t.values}
    points, steps, best, at = [], 0, -1.0, dict[int, int]()
    for number, step in executor.played:
        steps += step - at.get(number, 0)
        at[number] = step
        if step == recorded.length and finals[number] > best:
            best = finals[number]
            points.append((steps, recorded.best - best))
    return [*points, (steps, recorded.best - best)]


def regret_at(points: Sequence[tuple[int, float]], steps: float) -> float | None:
    """The regret after so many steps; None before the first trial has finished."""
    return next((regret for at, regret in reversed(points) if at <= steps), None)


def summary(recorded: Recorded, way: str, orders: int, first: int) -> dict[str, object]:
    """One algorithm over all orders."""
    began = time.perf_counter()
    runs = [play(recorded, way, order, first) for order in range(orders)]
    whole = recorded.length * len(recorded.curves)
    found: dict[str, object] = {"share_of_all_steps": round(statistics.fmean(r[-1][0] for r in runs) / whole, 4)}
    for share in SHARES:
        regrets = [regret_at(points, share * whole) for points in runs]
        known = [regret for regret in regrets if regret is not None]
        found[f"regret_after_{share:.3f}_of_all_steps"] = (
            {"mean": round(statistics.fmean(known), 5), "each": [round(r, 5) for r in known]}
            if len(known) == orders else None
        )  # fmt: skip
    to_best = [next((at / whole for at, regret in points if regret <= 0.005), None) for points in runs]
    found["share_of_steps_to_within_0.005"] = [None if share is None else round(share, 3) for share in to_best]
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


def real_sweep(folder: Path, recorded: Recorded) -> dict[str, object]:
    """A sweep that paused the first trials of the recorded one: the same best trial, for which share of the steps?"""
    trials = [trial for trial in Ledger(folder).trials() if not trial.confirms]
    assert [t.params for t in trials] == recorded.params[: len(trials)], "other trials"
    finals = [curve[recorded.length] for curve in recorded.curves[: len(trials)]]
    best = max((t for t in trials if t.state == COMPLETE), key=lambda t: t.values[0])
    assert best.values[0] == finals[best.number], "a trial that paused ended otherwise"
    steps = sum(recorded.length if t.state == COMPLETE else max(map(int, t.rungs)) for t in trials)
    return {
        "trials": len(trials), "to_the_end": sum(t.state == COMPLETE for t in trials), "steps": steps,
        "share_of_all_steps": round(steps / (recorded.length * len(trials)), 4),
        "best": best.number, "best_of_all": finals.index(max(finals)), "regret": max(finals) - best.values[0],
    }  # fmt: skip


def main() -> None:
    """Write multi_fidelity.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sweep", type=Path)
    parser.add_argument("--paused", type=Path, help="a sweep that paused the first trials of --sweep")
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--first", type=int, default=STEPS // 27, help="steps before the first pause")
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".json"))
    given = parser.parse_args()
    recorded = read_sweep(given.sweep) if given.sweep else record(given.configurations)
    ways = ("none", "median", "successive halving", "asha", "hyperband", "none, tpe", "asha, tpe")
    rows = {}
    for way in ways:
        rows[way] = summary(recorded, way, given.orders, given.first)
        print(way, json.dumps(rows[way]), flush=True)
    finals = sorted(curve[recorded.length] for curve in recorded.curves)
    result = {
        "curves": recorded.origin, "configurations": len(recorded.curves), "steps_of_each": recorded.length,
        "first_pause": given.first,
        "orders": given.orders, "at_once": AT_ONCE, "best": finals[-1], "median": statistics.median(finals),
        "algorithms": rows,
        "real_sweep": real_sweep(given.paused, recorded) if given.paused else None,
        "cpus": os.cpu_count(), "python": platform.python_version(),
        "optuna": optuna.__version__,
    }  # fmt: skip
    given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
