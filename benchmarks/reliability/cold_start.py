"""Figure 5: sixteen processes start at once where nothing is yet: no cache, no outputs, no database.

    python benchmarks/reliability/cold_start.py --count 20

All render the same scenes, decompose the same weights and create the same MLflow database; the runs differ by their
seed, but for two pairs that want the same run: of each pair one wins and the other says who holds the run, or finds it
finished. Beside it: as many MLflow clients that create a fresh SQLite store by themselves.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from harness import command, composed, spawn, train, workspace

from recyclelora.tracking import sync

PROCESSES = 16
TWINS = 2
OPTIONS = ["trainer.max_steps=2", "trainer.eval_every=2", "data.rare_classes.temperature=0.01"]


def measure(seed: int, count: int, stock_rounds: int | None = None) -> dict[str, Any]:
    """Start ``count`` times; the stock store in as many rounds, at most 5."""
    found = {"processes": 0, "failed": 0, "lost_to_a_twin": 0, "mlflow_runs_missing": 0}
    stock = {"processes": 0, "failed": 0}
    with workspace() as folder:
        for index in range(count):
            _round(folder / f"round-{index}", found)
        for index in range(min(count, 5) if stock_rounds is None else stock_rounds):
            _stock_round(folder / f"stock-{index}", stock)
    return {**found, "stock": {"MLflow client on a fresh SQLite store": stock}}


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


if __name__ == "__main__":
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

    command(measure, "cold_start", 20)
