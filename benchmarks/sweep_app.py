"""The small application of the sweep's tests under this project's sweeper and under the stock one: one harness.

The stock sweeper is hydra-optuna-sweeper, with its launchers: Hydra's own (in process), joblib and submitit (local).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import optuna

APP = Path(__file__).resolve().parents[1] / "tests/sweep/app.py"
STOCK = {"in process": "basic", "joblib": "joblib", "submitit": "submitit_local"}


@dataclass
class Sweep:
    """One sweep of the application below a folder.

    Args:
        folder: for everything that it writes
        launcher: None for ours, else a launcher of the stock sweeper
        n_jobs: trials at the same time
    """

    folder: Path
    launcher: str | None
    n_jobs: int = 2

    def __post_init__(self) -> None:
        if self.launcher == "joblib" and find_spec("hydra_plugins.hydra_joblib_launcher") is None:
            sys.exit("the stock sweeper needs its launcher here: pip install --no-deps hydra-joblib-launcher==1.4.0rc3")

    def command(self, *overrides: str) -> list[str]:
        """The command of the sweep."""
        common = [sys.executable, str(APP), "-m", f"hydra.sweep.dir={self.folder / 'out'}", *overrides]
        if self.launcher is None:
            return [*common, f"hydra.sweeper.n_jobs={self.n_jobs}"]
        jobs = ["hydra.launcher.n_jobs=2"] if self.launcher == "joblib" else []
        jobs += ["hydra.launcher.timeout_min=5"] if self.launcher == "submitit_local" else []
        return [
            *common, "hydra/sweeper=optuna", f"hydra/launcher={self.launcher}", *jobs, "hydra.sweeper.study_name=out",
            f"hydra.sweeper.n_jobs={self.n_jobs}", f"hydra.sweeper.storage=sqlite:///{self.folder / 'study.db'}",
            "hydra.sweeper.direction=maximize", "hydra.sweeper.max_failure_rate=1.0",
        ]  # fmt: skip

    def start(self, *overrides: str) -> subprocess.Popen[bytes]:
        """Start it; what it prints goes to ``log``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(self.command(*overrides), cwd=self.folder, stdout=log, stderr=log)

    def run(self, *overrides: str, timeout: float = 600) -> tuple[int, float]:
        """Run it to its end; exit code and seconds."""
        began = time.monotonic()
        process = self.start(*overrides)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = 124
        return code, time.monotonic() - began

    @property
    def executions(self) -> Counter[str]:
        """How often each trial was begun."""
        path = self.folder / "executions"
        return Counter(line.split()[0 if self.launcher is None else 1] for line in path.read_text().splitlines())

    def states(self) -> Counter[str]:
        """Optuna's states of all trials."""
        path = self.folder / ("out/study.db" if self.launcher is None else "study.db")
        study = optuna.load_study(study_name="out", storage=f"sqlite:///{path}")
        return Counter(trial.state.name for trial in study.trials)

    def values(self) -> dict[str, float]:
        """x -> value of the complete trials."""
        path = self.folder / ("out/study.db" if self.launcher is None else "study.db")
        study = optuna.load_study(study_name="out", storage=f"sqlite:///{path}")
        return {str(t.params["x"]): t.value for t in study.trials if t.value is not None}
