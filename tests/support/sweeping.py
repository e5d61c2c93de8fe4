"""Sweeps of a small application in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from recyclelora.sweep.ledger import Ledger, Trial

APP = Path(__file__).parents[1] / "sweep" / "app.py"


class Sweeping:
    """Runs the application below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *overrides: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(APP), "-m", f"hydra.sweep.dir={self.folder / 'out'}", *overrides]
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment, "COLUMNS": "200"}, start_new_session=True,
        )  # fmt: skip

    def __call__(self, *overrides: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*overrides, **environment)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def trials(self) -> list[Trial]:
        return Ledger(self.folder / "out").trials()

    @property
    def states(self) -> dict[str, int]:
        return dict(Counter(trial.state for trial in self.trials))

    @property
    def executions(self) -> list[str]:
        return (self.folder / "executions").read_text().splitlines()
