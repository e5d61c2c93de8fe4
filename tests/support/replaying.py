"""Trials that train nothing: an executor that plays recorded learning curves to the driver of a sweep."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution

from recyclelora.runs.unit import Unit, read_reports
from recyclelora.sweep.driver import Driver
from recyclelora.sweep.execution import Job, Stage, Status, Work
from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.rungs import Rungs
from recyclelora.sweep.space import Space
from recyclelora.sweep.study import open_study

Curve = Mapping[int, float]
"""Step -> the objective there; the last step is that of the schedule."""


@dataclass
class Played:
    """A unit that is played."""

    work: Work
    curve: Curve


class Replay:
    """Plays one evaluation of every running unit whenever the driver looks; a unit goes on after its last report.

    Args:
        curve_of: a unit's overrides -> its curve
        capacity: how many at a time
        slow: keeps back, so often in a row, the pause of a unit that has reported, so that the driver may let it go on
    """

    units_at_once = 1

    def __init__(self, curve_of: Callable[[Sequence[str]], Curve], capacity: int, slow: bool = False) -> None:
        self.curve_of, self.capacity, self.slow = curve_of, capacity, slow
        self.running: dict[str, Played] = {}
        self.gone: set[str] = set()
        self.looks = 0
        self.played: list[tuple[int, int]] = []
        """(trial, step) of every evaluation, in order"""
        self._names = (f"replay-{id(self)}-{i}" for i in itertools.count())

    def submit(self, work: Sequence[Work]) -> list[Job]:
        job = next(self._names)
        self.running[job] = Played(work[0], self.curve_of(work[0].overrides))
        Unit(work[0].folder).started(work[0].attempt, job)
        return [Job(job)]

    def status(self, jobs: Collection[str]) -> dict[str, Status]:
        self.looks += 1
        for job in [job for job in jobs if job in self.running]:
            if self._ends(self.running[job]):
                self.gone.add(job)
                del self.running[job]
        lost = Status(Stage.GONE, "lost with its driver", node_fault=True, excused=True)
        return {
            job: Status(Stage.RUNNING) if job in self.running else Status(Stage.GONE) if job in self.gone else lost
            for job in jobs
        }

    def _ends(self, played: Played) -> bool:
        unit, work = Unit(played.work.folder), played.work

        def ended(status: str, **more: object) -> bool:
            unit.outcome(status, attempt=work.attempt, seconds=0.0, **more)
            return True

        at = max((step for step, _ in read_reports(unit.folder)), default=0)
        if unit.stop_reason() is not None:
            return ended("pruned" if unit.stop_reason() == "pruned" else "failed", reason=unit.stop_reason())
        if at and at == unit.pauses_at:
            return ended("paused", reason=f"paused after step {at}", step=at, values=[played.curve[at]])
        step = next((s for s in sorted(played.curve) if s > at), None)
        if step is not None:
            unit.report(step, played.curve[step])
            self.played.append((work.number, step))
            if unit.pauses_at == step and not self.slow:
                return ended("paused", reason=f"paused after step {step}", step=step, values=[played.curve[step]])
        if step is None or step == max(played.curve):
            return ended("complete", values=[played.curve[max(played.curve)]])
        return False

    def wait(self, seconds: float) -> None:
        """Time does not pass."""

    def cancel(self, jobs: Collection[str]) -> None:
        for job in jobs:
            self.running.pop(job, None)

    def close(self) -> None:
        """Nothing is held."""


class Silent:
    """Keeps what the driver says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, text: str) -> None:
        self.said.append(text)

    def update(self, driver: Driver) -> None:
        """Nobody looks."""


def replay(sweep: Path, plan: Plan, executor: Replay, pruner: optuna.pruners.BasePruner | None = None) -> Driver:
    """Run a plan to its end, or go on with it, through the driver of every sweep."""
    ledger = Ledger(sweep)
    known = [trial for trial in ledger.trials() if not trial.confirms]
    study, _ = open_study(None, "replay", ["maximize"], known, [])
    if pruner is not None:
        study.pruner = pruner
    sweep.mkdir(parents=True, exist_ok=True)
    driver = Driver(plan, study, ledger, executor, Silent(), optuna.create_study)
    driver.run()
    return driver


# --- a sweep of which everything is known ----------------------------------------------------------------------------

RUNGS = Rungs((1, 3), 9, 3)
STEPS = (1, 2, 3, 6, 9)


def grid(values: Sequence[int], rungs: Rungs | None = RUNGS, **more: object) -> Plan:
    space = Space({"x": CategoricalDistribution(list(values))}, ["x"], {})
    return Plan(space, len(values), [{"x": value} for value in values], None, rungs=rungs, **more)  # type: ignore[arg-type]


def curve(overrides: Sequence[str]) -> Curve:
    """The larger x, the better, at every step."""
    x = int(next(text for text in overrides if text.startswith("x=")).removeprefix("x="))
    return {step: x * step / 9 for step in STEPS}


def states(sweep: Path) -> dict[str, int]:
    return dict(Counter(trial.state for trial in Ledger(sweep).trials()))
