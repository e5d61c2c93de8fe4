"""Figure 5: sixteen processes start at once where nothing is yet: no cache, no outputs, no database.

    python benchmarks/reliability/cold_start.py --count 20

All render the same scenes, decompose the same weights and create the same MLflow database; the runs differ by their
seed, but for two pairs that want the same run: of each pair one wins and the other says who holds the run, or finds it
finished. Beside it: as many MLflow clients that create a fresh SQLite store by themselves.

Then sixteen commands of one and the same sweep of four trials: one drives it, the others say so or find it finished.
Beside it: the same commands with hydra-optuna-sweeper and SQLite.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from harness import HERE, command, composed, spawn, train, workspace

sys.path.insert(0, str(HERE.parent))

from sweep_app import STOCK, Sweep

from recyclelora.tracking.follow import sync

PROCESSES = 16
TWINS = 2
OPTIONS = ["trainer.max_steps=2", "trainer.eval_every=2", "data.rare_classes.temperature=0.01", "tracking.model=false"]


def measure(seed: int, count: int, stock_rounds: int | None = None) -> dict[str, Any]:
    """Start ``count`` times; the stock tools in as many rounds, at most 5."""
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")  # once, before the forks
    found = {"processes": 0, "failed": 0, "lost_to_a_twin": 0, "mlflow_runs_missing": 0}
    stock = {"processes": 0, "failed": 0}
    sweeps, stock_sweeps = ({"commands": 0, "failed": 0, "sweeps": 0, "exactly_4_complete": 0} for _ in range(2))
    stock_rounds = min(count, 5) if stock_rounds is None else stock_rounds
    with workspace() as folder:
        for index in range(count):
            _round(folder / f"round-{index}", found)
            _sweep_round(Sweep(folder / f"sweep-{index}", None, n_jobs=1), sweeps)
        for index in range(stock_rounds):
            _stock_round(folder / f"stock-{index}", stock)
            _sweep_round(Sweep(folder / f"stock-sweep-{index}", STOCK["in process"], n_jobs=1), stock_sweeps)
    return {
        **found, "one_sweep": sweeps,
        "stock": {"MLflow client on a fresh SQLite store": stock, "hydra-optuna-sweeper": stock_sweeps},
    }  # fmt: skip


def _round(place: Path, found: dict[str, int]) -> None:
    seeds = [*range(PROCESSES - TWINS), *range(TWINS)]
    children = [spawn(place / f"{number}.log", _start, place, seed) for number, seed in enumerate(seeds)]
    codes = [child.wait() for child in children]
    for code, child in zip(codes, children, strict=True):
        lost = code == 2 and "in use by process" in child.text()
        found["processes"] += 1
        found["lost_to_a_twin"] += lost
        if code != 0 and not lost:
            found["failed"] += 1
            print(child.text())
    finished = list(place.glob("outputs/runs/*/result.json"))
    found["mlflow_runs_missing"] += PROCESSES - TWINS - len(_mlflow_runs(place / "outputs"))
    found["failed"] += PROCESSES - TWINS - len(finished)
    shutil.rmtree(place)


def _start(place: Path, seed: int) -> None:
    config = composed(place, *OPTIONS)
    config.seed = seed
    train(config)
    (run,) = (p.parent for p in (place / "outputs/runs").glob("*/config.yaml") if f"\nseed: {seed}\n" in p.read_text())
    sync(run)


def _mlflow_runs(outputs: Path) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_id for run in client.search_runs(experiments) if run.info.status == "FINISHED"}


def _stock_round(place: Path, found: dict[str, int]) -> None:
    children = [spawn(place / f"{number}.log", _stock_start, place) for number in range(PROCESSES)]
    codes = [child.wait() for child in children]
    found["processes"] += PROCESSES
    found["failed"] += sum(code != 0 for code in codes)


def _stock_start(place: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    run = client.create_run("0")
    client.log_metric(run.info.run_id, "loss", 1.0)
    client.set_terminated(run.info.run_id)


def _sweep_round(sweep: Sweep, found: dict[str, int]) -> None:
    """One and the same sweep, started by all at once."""
    search = ["x=interval(-5.0,5.0)", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4"]
    processes = [sweep.start(*search) for _ in range(PROCESSES)]
    codes = [process.wait() for process in processes]
    told = (sweep.folder / "log").read_text().count("in use by process")
    found["commands"] += PROCESSES
    found["failed"] += sum(code != 0 for code in codes) - told
    found["sweeps"] += 1
    complete = sweep.states() == {"COMPLETE": 4} and sum(sweep.executions.values()) == 4
    found["exactly_4_complete"] += complete
    shutil.rmtree(sweep.folder)


if __name__ == "__main__":
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

    command(measure, "cold_start", 20)
