"""How a running sweep stands, for its page: what runs, what waits, what it has cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from recyclelora.reports.table import Cell, Table
from recyclelora.sweep.cost import cost_of
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.race.reading import read_race
from recyclelora.sweep.record import read_study
from recyclelora.sweep.steering import living
from recyclelora.sweep.table import COLUMNS, running_rows


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
    rows = [[Cell(text, text) for text in row] for row in running_rows(trials)]
    return NowStanding(
        time.strftime("%Y-%m-%d %H:%M:%S"), seconds,
        str(cost_of(trials, about["n_trials"] if about else 0, read_race(sweep))),
        ", ".join(living(sweep)) or "none runs",
        Table("running", "Running and queued", [*COLUMNS], [False] * len(COLUMNS), rows),
    )  # fmt: skip
