"""The ledger: one folder a trial, plain JSON, written atomically; the truth about a sweep.

``trial.json`` says what was asked, ``state.json`` what has become of it, ``unit_<i>/`` is the job's, see
``runs/unit.py``. A killed driver finds everything here, and Optuna's study can be rebuilt from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from recyclelora.runs.unit import CONFIRM, AttemptEnd, Started, read_outcome, read_started, run_prefix, settles
from recyclelora.sweep.attempts import Attempt, now
from recyclelora.system.errors import UserError
from recyclelora.system.storage import set_aside, write_json
from recyclelora.system.typed_json import Time, read_record

WAITING, RUNNING, PAUSED, COMPLETE, PRUNED, FAILED = "waiting", "running", "paused", "complete", "pruned", "failed"
ENDED = (COMPLETE, PRUNED, FAILED)
TRIAL_FOLDER = re.compile(r"([a-z]+_)?\d+")
LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(e[+-]?\d+)?")
SEARCH = "search"
"""Kind of a trial that is no confirmation."""


class UnitRecord(TypedDict):
    """An entry of ``trial.json``."""

    overrides: list[str]


class TrialRecord(TypedDict):
    """``trial.json``."""

    number: int
    kind: str
    params: dict[str, Any]
    overrides: list[str]
    distributions: dict[str, str]
    asked: str
    units: list[UnitRecord]
    plan: NotRequired[int | None]
    retry_of: NotRequired[int | None]
    identity: NotRequired[str | None]


class StateRecord(TypedDict):
    """``state.json``."""

    state: Literal["waiting", "running", "paused", "complete", "pruned", "failed"]
    values: list[float] | None
    reason: str | None
    finished: Time | None
    attempts: list[Attempt]
    constraints: NotRequired[list[float] | None]
    driver: NotRequired[str | None]
    until: NotRequired[int | None]
    rungs: NotRequired[dict[str, float | None]]


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
    until: int | None = None
    """the step after which it pauses, or has paused; None: it goes to the end"""
    rungs: dict[str, float | None] = field(default_factory=dict)
    """steps after which it has paused, or could have -> the objective there"""
    remark: str | None = None
    """what of its files was not as it was written"""

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

    def said(self, unit: int) -> AttemptEnd | None:
        """How an attempt of a unit, not always the latest, ended; None where none has said so."""
        return read_outcome(self.unit_folder(unit))

    def outcome(self, unit: int) -> AttemptEnd | None:
        """How the latest attempt of a unit ended, if it did and said so; or an earlier one that succeeded after all."""
        found, latest = self.said(unit), self.attempts_of(unit)
        return found if found and latest and settles(found, latest[-1].attempt) else None

    def garbled(self, unit: int) -> bool:
        """Whether a unit has an outcome that is no longer what its job has written."""
        return (self.unit_folder(unit) / "outcome.json").exists() and self.said(unit) is None

    def job_of(self, unit: int) -> str:
        """The job of a unit's latest attempt; also of one that was submitted by a driver killed in that moment."""
        latest = self.attempts_of(unit)[-1]
        started = None if latest.job else read_started(self.unit_folder(unit))
        return started["job"] if started is not None and started["attempt"] == latest.attempt else latest.job

    def outcomes(self) -> list[AttemptEnd | None]:
        """Of every unit."""
        return [self.outcome(unit) for unit in range(len(self.units))]

    def end(self, state: str, *, values: list[float] | None = None, reason: str | None = None) -> None:
        """Decide the trial's end."""
        self.state, self.values, self.reason, self.finished = state, values, reason, now()
        self.save_state()

    def save(self) -> None:
        """Write ``trial.json``, and make the folders of its units."""
        for unit in range(len(self.units)):
            self.unit_folder(unit).mkdir(parents=True, exist_ok=True)
        about = {key: getattr(self, key) for key in TrialRecord.__annotations__}
        about["units"] = [{"name": f"unit_{i}", "overrides": unit} for i, unit in enumerate(self.units)]
        write_json(self.folder / "trial.json", about)

    def restored(self) -> bool:
        """Write it down again where somebody has removed it meanwhile; whether that was so."""
        gone = not (self.folder / "trial.json").exists()
        if gone:
            self.save()
            self.save_state()
        return gone

    def save_state(self) -> None:
        """Write ``state.json``."""
        about = {key: getattr(self, key) for key in StateRecord.__annotations__}
        about["attempts"] = [asdict(attempt) for attempt in self.attempts]
        write_json(self.folder / "state.json", about)


class Ledger:
    """All trials of a sweep."""

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self.root = sweep / "ledger"
        self.remarks: list[str] = []
        """what the latest reading found that is not as it was written; the other trials do not suffer from it"""
        self.unreadable: list[Path] = []
        """folders of trials that are left out"""

    def set_unreadable_aside(self) -> None:
        """Free the numbers of trials whose ``trial.json`` is not what was written: they are asked for again.

        For the driver, after a reading; what is there stays under another name.
        """
        for folder in self.unreadable:
            set_aside(folder, "unreadable")

    def add(
        self, number: int, params: dict[str, Any], overrides: list[str], units: list[list[str]],
        distributions: dict[str, str], kind: str = SEARCH, plan: int | None = None, retry_of: int | None = None,
        identity: str | None = None,
    ) -> Trial:  # fmt: skip
        """Write a new trial down, before anything of it is submitted."""
        trial = Trial(
            self.root / trial_folder(kind, number), number, params, overrides, units, distributions, kind, now(),
            plan=plan, retry_of=retry_of, identity=identity,
        )  # fmt: skip
        trial.save()
        return trial

    def trials(self) -> list[Trial]:
        """Every trial, searched ones by number first, then the confirmations; what is no trial is in ``remarks``.

        Raises:
            UserError: the ledger is no folder.
        """
        self.remarks, self.unreadable = [], []
        if not self.root.exists() and not self.root.is_symlink():
            return []
        if not self.root.is_dir():
            raise UserError(f"{self.root}: must be a folder: the ledger of the sweep's trials")
        found: list[Trial] = []
        for folder in sorted(self.root.iterdir()):
            if not TRIAL_FOLDER.fullmatch(folder.name) or not (folder / "trial.json").exists():
                continue
            try:
                found.append(read_trial(folder))
            except UserError as error:
                self.remarks.append(f"{error}; the trial is left out")
                self.unreadable.append(folder)
            else:
                self.remarks += filter(None, [found[-1].remark])
        return sorted(found, key=lambda trial: (trial.confirms, trial.number))


def read_trial(folder: Path) -> Trial:
    """Read one trial's folder; where its state is not what was written, what its jobs have said counts.

    Raises:
        UserError: ``trial.json`` is not what was written.
    """
    path = folder / "state.json"
    state, wrong = _read_state(path)  # first: a driver writes a trial's further units down before their attempts
    about = read_record(folder / "trial.json", TrialRecord)
    units = [unit["overrides"] for unit in about["units"]]
    if trial_folder(about["kind"], about["number"]) != folder.name or not units:
        raise UserError(f"{folder / 'trial.json'}: number, kind or units are not those of {folder.name}")
    trial = Trial(
        folder, about["number"], about["params"], about["overrides"], units, about["distributions"], about["kind"],
        about["asked"], plan=about.get("plan"), retry_of=about.get("retry_of"), identity=about.get("identity"),
    )  # fmt: skip
    attempts: Any = state["attempts"] if state else []  # as they are in the file
    if any(not 0 <= attempt["unit"] < len(units) for attempt in attempts):
        wrong = f"{path}: attempts is of units that the trial does not have"
    if wrong:
        trial.remark = f"{wrong}; what its jobs have said counts instead"
        trial.attempts = [attempt for unit in range(len(units)) for attempt in _attempts_by_jobs(trial, unit)]
        trial.state = RUNNING if trial.attempts else WAITING
    elif state:
        known = {f.name for f in fields(Attempt)}
        for key in StateRecord.__annotations__.keys() & state.keys():
            setattr(trial, key, state.get(key))
        trial.attempts = [Attempt(**{k: v for k, v in a.items() if k in known}) for a in attempts]
    return trial


def _read_state(path: Path) -> tuple[StateRecord | None, str | None]:
    """``state.json`` if there is one, and what is wrong with it."""
    try:
        state = read_record(path, StateRecord) if path.exists() else None
    except UserError as error:
        return None, str(error)
    if state and state["state"] == COMPLETE and not state["values"]:
        return None, f"{path}: values is {state['values']}, though state is complete"
    return state, None


def _attempts_by_jobs(trial: Trial, unit: int) -> Iterator[Attempt]:
    """The tries of a unit as its jobs have written them down; those before the latest by number only."""
    said: list[AttemptEnd | Started | None] = [trial.said(unit), read_started(trial.unit_folder(unit))]
    latest = max((record["attempt"] for record in said if record is not None), default=0)
    for number in range(1, latest + 1):
        yield Attempt(unit, number, "", trial.asked, None if number == latest else now())


def trial_folder(kind: str, number: int) -> str:
    """The name of a trial's folder in the ledger."""
    return f"{number:04d}" if kind == SEARCH else f"{kind}_{number:04d}"
