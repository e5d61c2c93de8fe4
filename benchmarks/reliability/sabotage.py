"""Figure 7: a grid of 20 trials with fixed parameters, 8 of which go wrong, each in another way.

    python benchmarks/reliability/sabotage.py

Counted: healthy results equal to those of an undisturbed sweep, and failures with the right reason. Beside it
hydra-optuna-sweeper with joblib and max_failure_rate=1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sweep_app import Sweep  # noqa: E402

from recyclelora.sweep.ledger import Ledger  # noqa: E402

REASONS = {
    1: ("raise", "ValueError: the data are gone"),
    3: ("user", "data.root=/nowhere: no such folder"),
    5: ("memory", "MemoryError: out of memory: tried to allocate 80 GiB"),
    7: ("nan", "the objective is nan, not a finite number"),
    9: ("none", "the objective is None, not a finite number"),
    11: ("exit", "the trial's process left with exit code 7"),
    13: ("kill", "killed by SIGKILL (out of memory?); 3 attempts"),
    15: ("hang", "took longer than hydra.launcher.timeout_min=0.1"),
}
GRID = "x=" + ",".join(f"{i}.0" for i in range(20))
ACTS = "sabotage='" + " ".join(f"{number}:{act}" for number, (act, _) in REASONS.items()) + "'"


def measure() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        clean = Sweep(Path(folder) / "clean", None)
        clean.run(GRID)
        wanted = {x: value for x, value in clean.values().items() if int(float(x)) not in REASONS}
        ours = Sweep(Path(folder) / "ours", None)
        code, seconds = ours.run(GRID, ACTS, "hydra.launcher.timeout_min=0.1")
        reasons = {t.number: t.reason for t in Ledger(ours.folder / "out").trials() if t.state == "failed"}
        stock = Sweep(Path(folder) / "stock", "joblib")
        choices = GRID.removeprefix("x=")
        stock_code, stock_seconds = stock.run(
            f"x=choice({choices})", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=20", ACTS, timeout=120
        )
        return {
            "healthy": len(wanted),
            "sabotaged": len(REASONS),
            "recyclelora": {
                "healthy_equal": sum(ours.values().get(x) == value for x, value in wanted.items()),
                "reasons_right": sum(reasons.get(number) == reason for number, (_, reason) in REASONS.items()),
                "exit_code": code, "seconds": round(seconds, 1), "states": dict(ours.states()),
            },
            "hydra-optuna-sweeper": {
                "healthy_equal": sum(stock.values().get(x) == value for x, value in wanted.items()),
                "reasons_right": 0,
                "exit_code": stock_code, "seconds": round(stock_seconds, 1), "states": dict(stock.states()),
            },
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    result = measure()
    print(json.dumps(result, indent=2))
    given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
