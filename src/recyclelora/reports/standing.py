"""How a running sweep stands, for its page: what runs, what waits, what it has cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from recyclelora.reports.table import Cell, Table
from recyclelora.sweep.cost import cost_of
from recyclelora.sweep.ledger import RUNNING, Ledger
from recyclelora.sweep.racing import read_race
from recyclelora.sweep.record import read_study
from recyclelora.sweep.steering import living
from recyclelora.sweep.table import running_row

COLUMNS = ["trial", "what", "step", "loss", "last value", "time or why it waits", "job"]


@dataclass(frozen=True)
class NowStanding:
    """Of this moment."""

    time: str
    seconds: int
    """after which a browser looks again"""
    cost: str
    driver: str
    running: Table


def read_standing(sweep: Path, seconds: int) -> NowStanding:
    """Read it from the ledger."""
    trials, about = Ledger(sweep).trials(), read_study(sweep)
    rows = [
        [Cell(text, text) for text in running_row(trial, unit, trial.job_of(unit))]
        for trial in trials
        if trial.state == RUNNING
        for unit in range(len(trial.units))
        if trial.attempts_of(unit) and trial.outcome(unit) is None
    ]
    return NowStanding(
        time.strftime("%Y-%m-%d %H:%M:%S"), seconds,
        str(cost_of(trials, about["n_trials"] if about else 0, read_race(sweep))),
        ", ".join(living(sweep)) or "none runs",
        Table("running", "Running and queued", COLUMNS, [False] * len(COLUMNS), rows),
    )  # fmt: skip
