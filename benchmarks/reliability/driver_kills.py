"""Figure 3: SIGKILLs of the driver of a 20-trial sweep with 2 workers, then the same command again.

    python benchmarks/reliability/driver_kills.py --seed 0 --count 50

A sweep's driver is killed at random moments until the sweep ends by itself; new sweeps follow until there were
``count`` kills. Counted: trials that are not complete at the end, were begun more than once, or are left RUNNING.
Beside it hydra-optuna-sweeper with joblib and SQLite, killed and started again as often; it is allowed 20 commands.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sweep_app import Sweep  # noqa: E402

TRIALS = 20
SEARCH = ["x=interval(-5.0,5.0)", "hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.seed=0", "pause=0.3",
          f"hydra.sweeper.n_trials={TRIALS}"]  # fmt: skip


def one_sweep(sweep: Sweep, rng: random.Random, kills: int, longest: float) -> Counter[str]:
    """Kill a sweep's driver up to so many times, then let it end."""
    done = 0
    for _ in range(20):
        process = sweep.start(*SEARCH)
        if done < kills:
            try:
                process.wait(rng.uniform(0.0, longest))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
        else:
            process.wait(600)
            break
    states = sweep.states()
    begun = sweep.executions
    return Counter({
        "sweeps": 1, "kills": done, "trials": sum(states.values()), "complete": states["COMPLETE"],
        "running": states["RUNNING"], "begun_twice": sum(count > 1 for count in begun.values()),
        "exactly_20_complete": int(states == Counter({"COMPLETE": TRIALS})),
    })  # fmt: skip


def measure(seed: int, count: int, longest: float = 6.0) -> dict[str, object]:
    found = {}
    for name, launcher in (("recyclelora", None), ("hydra-optuna-sweeper", "joblib")):
        rng, total = random.Random(seed), Counter[str]()
        with tempfile.TemporaryDirectory() as folder:
            while total["kills"] < count:
                sweep = Sweep(Path(folder) / str(total["sweeps"]), launcher)
                total += Counter({"kills": 0}) + one_sweep(sweep, rng, min(5, count - total["kills"]), longest)
        keys = ("sweeps", "kills", "trials", "complete", "running", "begun_twice", "exactly_20_complete")
        found[name] = {key: total[key] for key in keys}
    return {"seed": seed, "trials_per_sweep": TRIALS, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    result = measure(given.seed, given.count)
    print(json.dumps(result, indent=2))
    given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
