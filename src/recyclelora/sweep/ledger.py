"""The ledger: one folder a trial, plain JSON, written atomically; the truth about a sweep.

``trial.json`` says what was asked, ``state.json`` what has become of it, ``unit_<i>/`` is the job's (see ``unit.py``).
A killed driver finds everything here, and Optuna's study can be rebuilt from it.
"""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recyclelora.errors import UserError
from recyclelora.storage import read_json, write_json
from recyclelora.sweep.unit import CONFIRM, run_prefix, settles

WAITING, RUNNING, COMPLETE, PRUNED, FAILED = "waiting", "running", "complete", "pruned", "failed"
ENDED = (COMPLETE, PRUNED, FAILED)
DRIVER_LOCK = ".driver.lock"
"""In the sweep's folder: held by its driver."""
LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?")
SEARCH = "search"
"""Kind of a trial that is no confirmation."""


@dataclass
class Attempt:
    """One try of one unit."""

    unit: int
    attempt: int
    job: str
    """the executor's name for the job that runs it; empty until it is submitted"""
    submitted: str
    ended: str | None = None
    reason: str | None = None
    node_fault: bool = False
    excused: bool = False
    """its end says nothing about the trial, and is not counted as a try"""
    began: bool = True
    """whether its job got as far as the unit"""
    reached: int | None = None
    """the last step that the unit had told of when it ended"""


@dataclass
class Trial:
    """A trial of the ledger."""

    folder: Path
    number: int
    params: dict[str, Any]
    """Optuna's parameters, by override key"""
    overrides: list[str]
    """what the trial adds to the sweep's command, seeds of repeats left out"""
    units: list[list[str]]
    """overrides of each unit, complete"""
    distributions: dict[str, str] = field(default_factory=dict)
    """Optuna's JSON of each parameter's distribution"""
    kind: str = SEARCH
    asked: str = ""
    state: str = WAITING
    values: list[float] | None = None
    reason: str | None = None
    finished: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    constraints: list[float] | None = None
    """by how much each constraint is broken; at most 0 means kept"""
    retry_of: int | None = None
    """the failed trial that this one repeats, by the user's wish"""
    driver: str | None = None
    """who drives it: process and host"""
    plan: int | None = None
    """which of the planned points this is (a grid's, an enqueued one); None: the sampler chose"""
    identity: str | None = None
    """equal for trials that train the same; None where an earlier version wrote it"""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to this trial."""
        return self.state in ENDED

    @property
    def confirms(self) -> bool:
        """Whether it only runs a candidate again."""
        return self.kind == CONFIRM

    @property
    def feasible(self) -> bool:
        """Whether it keeps the constraints."""
        return all(excess <= 0 for excess in self.constraints or ())

    @property
    def value(self) -> float | None:
        """The first objective of a complete trial."""
        return self.values[0] if self.state == COMPLETE and self.values else None

    @property
    def what(self) -> str:
        """What it varies, for people: long numbers to four digits."""
        return LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", ", ".join(self.overrides)) or "-"

    @property
    def run_prefix(self) -> str:
        """How the folders of its runs begin: ``trial_0007`` or ``confirm_0007``."""
        return run_prefix(self.folder)

    def unit_folder(self, unit: int) -> Path:
        """Where the job of a unit writes."""
        return self.folder / f"unit_{unit}"

    def attempts_of(self, unit: int) -> list[Attempt]:
        """All tries of a unit, the first one first."""
        return [attempt for attempt in self.attempts if attempt.unit == unit]

    def said(self, unit: int) -> dict[str, Any] | None:
        """How an attempt of a unit, not always the latest, ended; None where none has said so."""
        path = self.unit_folder(unit) / "outcome.json"
        return read_json(path) if path.exists() else None

    def outcome(self, unit: int) -> dict[str, Any] | None:
        """How the latest attempt of a unit ended, if it did and said so; or an earlier one that succeeded after all."""
        found, latest = self.said(unit), self.attempts_of(unit)
        return found if found and latest and settles(found, latest[-1].attempt) else None

    def job_of(self, unit: int) -> str:
        """The job of a unit's latest attempt; also of one that was submitted by a driver killed in that moment."""
        latest = self.attempts_of(unit)[-1]
        path = self.unit_folder(unit) / "started.json"
        if latest.job or not path.exists():
            return latest.job
        started = read_json(path)
        return str(started["job"]) if started["attempt"] == latest.attempt else ""

    def outcomes(self) -> list[dict[str, Any] | None]:
        """Of every unit."""
        return [self.outcome(unit) for unit in range(len(self.units))]

    def end(self, state: str, *, values: list[float] | None = None, reason: str | None = None) -> None:
        """Decide the trial's end."""
        self.state, self.values, self.reason, self.finished = state, values, reason, now()
        self.save_state()

    def save_plan(self) -> None:
        """Write which planned point this is, with the parameters that it has there."""
        path = self.folder / "trial.json"
        own = {"plan": self.plan, "params": self.params, "distributions": self.distributions, "identity": self.identity}
        write_json(path, {**read_json(path), **own})

    def save_state(self) -> None:
        """Write ``state.json``."""
        about = {
            "state": self.state,
            "values": self.values,
            "constraints": self.constraints,
            "reason": self.reason,
            "finished": self.finished,
            "driver": self.driver,
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }
        write_json(self.folder / "state.json", about)


class Ledger:
    """All trials of a sweep."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self.root = sweep / "ledger"

    def add(
        self, number: int, params: dict[str, Any], overrides: list[str], units: list[list[str]],
        distributions: dict[str, str], kind: str = SEARCH, plan: int | None = None, retry_of: int | None = None,
        identity: str | None = None,
    ) -> Trial:  # fmt: skip
        """Write a new trial down, before anything of it is submitted."""
        name = f"{number:04d}" if kind == SEARCH else f"{kind}_{number:04d}"
        trial = Trial(
            self.root / name, number, params, overrides, units, distributions, kind, now(), plan=plan,
            retry_of=retry_of, identity=identity,
        )  # fmt: skip
        for unit in range(len(units)):
            trial.unit_folder(unit).mkdir(parents=True, exist_ok=True)
        about = {
            "number": number,
            "kind": kind,
            "params": params,
            "overrides": overrides,
            "distributions": distributions,
            "asked": trial.asked,
            "plan": plan,
            "retry_of": retry_of,
            "identity": identity,
            "units": [{"name": f"unit_{i}", "overrides": unit} for i, unit in enumerate(units)],
        }
        write_json(trial.folder / "trial.json", about)
        return trial

    def trials(self) -> list[Trial]:
        """Every trial, searched ones by number first, then the confirmations.

        Raises:
            UserError: a file of the ledger is not what was written.
        """
        if not self.root.is_dir():
            return []
        found = [read_trial(folder) for folder in sorted(self.root.iterdir()) if (folder / "trial.json").exists()]
        return sorted(found, key=lambda trial: (trial.confirms, trial.number))


def read_trial(folder: Path) -> Trial:
    """Read one trial's folder.

    Raises:
        UserError: a file is not what was written.
    """
    about = read_json(folder / "trial.json")
    path = folder / "state.json"
    state = read_json(path) if path.exists() else {}
    try:
        return Trial(
            folder, about["number"], about["params"], about["overrides"],
            [unit["overrides"] for unit in about["units"]], about["distributions"], about["kind"], about["asked"],
            state.get("state", WAITING), state.get("values"), state.get("reason"), state.get("finished"),
            [Attempt(**attempt) for attempt in state.get("attempts", [])], state.get("constraints"),
            about.get("retry_of"), state.get("driver"), about.get("plan"), about.get("identity"),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}: not a trial of this version's ledger: {error}") from error


def now() -> str:
    """The time, as the ledger writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
