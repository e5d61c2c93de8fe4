"""Figure 3: SIGKILLs of the driver of a 20-trial sweep with 2 workers, then the same command again.

    python benchmarks/reliability/driver_kills.py --seed 0 --count 50

A sweep's driver is killed at random moments, four times in five after a trial has begun, until the sweep ends
by itself; new sweeps follow until there were ``count`` kills. Counted: trials that are not complete at the end, were
begun more than once, or are left RUNNING.
Beside it hydra-optuna-sweeper with joblib and SQLite, killed and started again as often; it is allowed 20 commands.

Then as many kills of sweeps of 27 trials that pause at rungs, and of races of three candidates over seeds, neither of
which the other tool has. Counted: runs that were begun again after they were complete, best trials that are not the
right one, and verdicts that are not those of a race that nobody disturbs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.race.reading import read_race
from recyclelora.sweep.race.rules import conclusion

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sweep_app import Sweep  # noqa: E402

TRIALS = 20
SEARCH = ["x=interval(-5.0,5.0)", "hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.seed=0", "pause=0.3",
          f"hydra.sweeper.n_trials={TRIALS}"]  # fmt: skip
PAUSING = ["x=" + ",".join(map(str, range(1, 28))), "steps=9", "resumes=true", "pause=0.02",
           "hydra/sweeper/pruner=asha", "hydra.sweeper.pruner.max_resource=9"]  # fmt: skip
RACING = ["x=1,2.95,3", "noise=0.2", "pause=0.2", "hydra.sweeper.race='x=3'", "hydra.sweeper.race_on=objective",
          "hydra.sweeper.race_seeds=12"]  # fmt: skip


def kill_often(sweep: Sweep, command: Sequence[str], rng: random.Random, kills: int, longest: float) -> int:
    """Kill a sweep's driver up to so many times, then let it end; how often it was killed."""
    done = 0
    for _ in range(20):
        process = sweep.start(*command)
        if done < kills:
            if rng.random() < 0.8:
                _until_a_trial_begins(sweep, process)
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
    return done


def _until_a_trial_begins(sweep: Sweep, process: subprocess.Popen[bytes]) -> None:
    """Wait for the first of this command, however long a loaded machine takes to start it."""
    path = sweep.folder / "executions"
    before = path.stat().st_size if path.exists() else 0
    while process.poll() is None and (path.stat().st_size if path.exists() else 0) == before:
        time.sleep(0.02)


def one_search(sweep: Sweep, rng: random.Random, kills: int, longest: float) -> Counter[str]:
    """A search of 20 trials."""
    done = kill_often(sweep, SEARCH, rng, kills, longest)
    states = sweep.states()
    begun = sweep.executions
    return Counter({
        "sweeps": 1, "kills": done, "trials": sum(states.values()), "complete": states["COMPLETE"],
        "running": states["RUNNING"], "begun_twice": sum(count > 1 for count in begun.values()),
        "exactly_20_complete": int(states == Counter({"COMPLETE": TRIALS})),
    })  # fmt: skip


def repeated(sweep: Sweep) -> int:
    """Runs that were begun again after they were complete."""
    path = sweep.folder / "repeated"
    return len(path.read_text().splitlines()) if path.exists() else 0


def one_pausing(sweep: Sweep, rng: random.Random, kills: int, longest: float) -> Counter[str]:
    """A search that pauses; its best trial is x=3, which alone has the value 0."""
    done = kill_often(sweep, PAUSING, rng, kills, longest)
    trials = Ledger(sweep.folder / "out").trials()
    ends = Counter(trial.state for trial in trials)
    best = max((t for t in trials if t.values), key=lambda t: t.values or [], default=None)
    return Counter({
        "sweeps": 1, "kills": done, "trials": len(trials), "complete": ends["complete"], "paused": ends["paused"],
        "others": len(trials) - ends["complete"] - ends["paused"], "begun_after_their_end": repeated(sweep),
        "right_best": int(best is not None and str(best.params["x"]) == "3" and best.values == [0.0]),
    })  # fmt: skip


def one_race(sweep: Sweep, rng: random.Random, kills: int, longest: float) -> Counter[str]:
    """A race; its verdicts are those of one that nobody disturbs."""
    done = kill_often(sweep, RACING, rng, kills, longest)
    undisturbed = Sweep(sweep.folder / "undisturbed", None)
    undisturbed.run(*RACING)
    said, right = (_conclusion(folder / "out") for folder in (sweep.folder, undisturbed.folder))
    runs = [unit for trial in Ledger(sweep.folder / "out").trials() for unit in trial.outcomes()]
    return Counter({
        "sweeps": 1, "kills": done, "runs": len(runs), "complete": sum(bool(r and r["values"]) for r in runs),
        "begun_after_their_end": repeated(sweep), "same_verdicts": int(said == right),
    })  # fmt: skip


def _conclusion(sweep: Path) -> str | None:
    known = read_race(sweep)
    return conclusion(*known) if known else None


def until(
    count: int, one: Callable[[Sweep, random.Random, int, float], Counter[str]], launcher: str | None, seed: int,
    longest: float,
) -> dict[str, int]:  # fmt: skip
    """Sweep after sweep until so many drivers were killed."""
    rng, total = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        while total["kills"] < count:
            found = one(
                Sweep(Path(folder) / str(total["sweeps"]), launcher), rng, min(5, count - total["kills"]), longest
            )
            total.update(found)
    return dict(total)


def measure(seed: int, count: int, longest: float = 6.0) -> dict[str, object]:
    return {
        "seed": seed, "trials_per_sweep": TRIALS,
        "recyclelora": until(count, one_search, None, seed, longest),
        "hydra-optuna-sweeper": until(count, one_search, "joblib", seed, longest),
        "pausing": until(count, one_pausing, None, seed, longest),
        "racing": until(count, one_race, None, seed, longest),
    }  # fmt: skip


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
