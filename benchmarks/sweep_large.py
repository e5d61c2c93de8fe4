"""A sweep that already has 10,000 trials: memory of its driver, seconds until it works, seconds a new trial.

    python benchmarks/sweep_large.py                # about 10 minutes; writes sweep_large.json

The ledger (or, for hydra-optuna-sweeper, the SQLite study) of finished random trials is written first. Then the command
of the sweep asks for 20 trials more, whose task does nothing, with random search and in process. The first command of
ours finds no SQLite file and rebuilds it from the ledger, the second finds everything. A sweep of 20 trials that begins
with nothing stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution, distribution_to_json
from sweep_app import STOCK, Sweep

from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.ledger import COMPLETE, Ledger, now

NEW = 20
SPACE = {"x": FloatDistribution(-5.0, 5.0)}


def write_ledger(sweep: Path, trials: int) -> None:
    """Finished trials as a driver leaves them."""
    rng, ledger = random.Random(0), Ledger(sweep)
    texts = {key: distribution_to_json(one) for key, one in SPACE.items()}
    for number in range(trials):
        params = {"x": rng.uniform(-5, 5)}
        overrides = [f"x={params['x']}"]
        trial = ledger.add(number, params, overrides, [overrides], texts)
        trial.attempts.append(Attempt(0, 1, str(number), now(), now()))
        trial.end(COMPLETE, values=[-((params["x"] - 3) ** 2)])


def write_study(path: Path, trials: int) -> None:
    """The same as Optuna stores it."""
    rng = random.Random(0)
    study = optuna.create_study(study_name="out", storage=f"sqlite:///{path}", direction="maximize")
    for _ in range(trials):
        x = rng.uniform(-5, 5)
        study.add_trial(optuna.create_trial(params={"x": x}, distributions=SPACE, value=-((x - 3) ** 2)))


def command(sweep: Sweep, trials: int) -> dict[str, float]:
    """Seconds and memory of the driver's command that asks for so many trials."""
    process = sweep.start("x=interval(-5.0,5.0)", "hydra/sweeper/sampler=random", f"hydra.sweeper.n_trials={trials}")
    began = time.monotonic()
    first, memory = None, 0.0
    while process.poll() is None:
        if first is None and (sweep.folder / "executions").exists():
            first = time.monotonic() - began
        time.sleep(0.02)
        memory = _peak(process.pid) or memory
    assert process.returncode == 0, (sweep.folder / "log").read_text()
    assert first is not None
    seconds = time.monotonic() - began
    (sweep.folder / "executions").unlink()
    return {
        "first_trial_s": round(first, 2),
        "ms_a_trial": round(1000 * (seconds - first) / NEW, 1),
        "peak_memory_mb": round(memory),
    }


def _peak(pid: int) -> float:
    """Most resident memory of a process so far, in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Write sweep_large.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty, ours = (Sweep(Path(folder) / name, None, n_jobs=1) for name in ("empty", "ours"))
        stock = Sweep(Path(folder) / "stock", STOCK["in process"], n_jobs=1)
        stock.folder.mkdir()
        print("writing a ledger and a study", file=sys.stderr)
        write_ledger(ours.folder / "out", given.trials)
        write_study(stock.folder / "study.db", given.trials)
        rows = {
            "recyclelora, nothing before": command(empty, NEW),
            "recyclelora, the study is rebuilt": command(ours, given.trials + NEW),
            "recyclelora": command(ours, given.trials + 2 * NEW),
            "hydra-optuna-sweeper": command(stock, NEW),
        }
    result = {
        "trials_before": given.trials, "new_trials": NEW, **rows,
        "cpus": os.cpu_count(), "python": platform.python_version(), "optuna": optuna.__version__,
    }  # fmt: skip
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
