"""The driver: keeps the executor busy, decides what a job's end means; the one writer of the study.

Everything it decides is in the ledger before it acts on it, so that a killed driver's successor goes on where it was.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

import optuna

from recyclelora.errors import UserError
from recyclelora.storage import read_json
from recyclelora.sweep.execution import Executor, Stage, Status, Work
from recyclelora.sweep.ledger import COMPLETE, FAILED, PRUNED, RUNNING, WAITING, Attempt, Ledger, Trial, now
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.pruning import Pruning
from recyclelora.sweep.search import Search
from recyclelora.sweep.steering import Wishes, alive, driver_name, lives, one_at_a_time
from recyclelora.sweep.study import tell
from recyclelora.sweep.unit import CANCELLED, Unit

MOST_INTERRUPTIONS = 100
"""A unit that was stopped as often, each time saving itself, is given up."""
WORSE = "worse than the others at the same point"

GLANCE = 0.5
"""Seconds between two looks at reports and progress."""


class Observer(Protocol):
    """Shows a person what happens."""

    def event(self, text: str) -> None:
        """Something happened that is worth a line."""
        ...

    def update(self, driver: Driver) -> None:
        """Show how things stand."""
        ...


class Driver:
    """Runs a plan to its end, or as far as it gets."""

    def __init__(
        self, plan: Plan, study: optuna.Study, ledger: Ledger, executor: Executor, observer: Observer,
    ) -> None:  # fmt: skip
        self.plan, self.study, self.ledger, self.executor, self.observer = plan, study, ledger, executor, observer
        self.search = Search(plan, study, ledger, driver_name())
        self.pruning = Pruning(study)
        self.wishes = Wishes(ledger.sweep, shared=plan.shared)
        self.jobs: dict[str, list[tuple[Trial, int]]] = {}
        """running jobs -> their units"""
        self.queue: list[tuple[Trial, int]] = []
        """units to submit"""
        self.stop: int | None = None
        """the signal that asked the driver to end"""

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until everything is done, or until a signal or too many failures say otherwise."""
        with alive(self.ledger.sweep, self.search.driver):
            self._take_over()
            self._work()
        self.search.refresh()
        self.observer.update(self)

    def _work(self) -> None:
        with self._signals():
            while True:
                self._look()
                self._obey()
                if self.plan.prunes:
                    self._prune()
                if self.stop is not None:
                    self._wind_down()
                    break
                self._submit()
                self.observer.update(self)
                if not self.jobs and not self.queue:
                    break
                self.executor.wait(GLANCE)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(number: int, _: FrameType | None) -> None:
            self.stop = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _obey(self) -> None:
        """Take a new number of trials that someone has asked for from another shell."""
        n_trials = self.wishes.new()
        if n_trials is not None:
            self.search.n_trials = n_trials
            self.observer.event(f"asked for {n_trials} trials")

    def _take_over(self) -> None:
        """Adopt the jobs of an earlier driver, take the outcomes of those that have ended, queue the rest."""
        with one_at_a_time(self.ledger.sweep, shared=self.plan.shared):
            self.search.refresh()  # another successor may have been first
            mine = [trial for trial in self.search.trials.values() if not trial.ended and self._mine(trial)]
        for trial in mine:
            wanted = self._wanted_units(trial)
            if not wanted:  # its last unit ended while no driver was watching
                self._settle_trial(trial)
            for unit in wanted:
                last = trial.attempts_of(unit)[-1:]
                job = trial.job_of(unit) if last and last[0].ended is None else ""
                if job:
                    last[0].job = job
                    self.jobs.setdefault(job, []).append((trial, unit))
                else:
                    self.queue.append((trial, unit))

    def _mine(self, trial: Trial) -> bool:
        """Whether no other living driver has this trial; takes it then."""
        name = self.search.driver
        if self.plan.shared and trial.driver not in (None, name) and lives(self.ledger.sweep, str(trial.driver)):
            return False
        trial.driver = name
        trial.save_state()
        return True

    def _wanted_units(self, trial: Trial) -> list[int]:
        """Units that have no outcome yet and may run now."""
        missing = [i for i, outcome in enumerate(trial.outcomes()) if outcome is None or not _final(outcome)]
        return missing[:1] if self.plan.prunes and not trial.confirms else missing

    # --- submitting ---------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """Fill the executor."""
        busy = sum(len(units) for units in self.jobs.values())
        while busy < self.executor.capacity:
            room = min(self.executor.units_per_job, self.executor.capacity - busy)
            units = [pair for _ in range(room) if (pair := self._next()) is not None]
            if not units:
                return
            self._start(units)
            busy += len(units)

    def _start(self, units: list[tuple[Trial, int]]) -> None:
        works = []
        for trial, unit in units:
            attempt = Attempt(unit, len(trial.attempts_of(unit)) + 1, "", now())
            trial.attempts.append(attempt)
            trial.state = RUNNING
            trial.save_state()  # before the job can look for it
            works.append(Work(trial.number, trial.unit_folder(unit), attempt.attempt, trial.units[unit]))
        job = self.executor.submit(works)
        for trial, unit in units:
            trial.attempts_of(unit)[-1].job = job
            trial.save_state()
        self.jobs[job] = units

    def _next(self) -> tuple[Trial, int] | None:
        """The unit to run next: what is queued, else one of a new trial."""
        if self.queue:
            return self.queue.pop(0)
        trial = self.search.next()
        while self.search.remarks:
            self.observer.event(self.search.remarks.pop(0))
        if trial is None:
            return None
        first, *rest = self._wanted_units(trial)
        self.queue += [(trial, unit) for unit in rest]
        return trial, first

    # --- what became of jobs ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See which jobs have ended and decide what that means."""
        for job, status in self.executor.status(list(self.jobs)).items():
            if status.stage == Stage.QUEUED and all(_unwanted(trial, unit) for trial, unit in self.jobs[job]):
                self.executor.cancel([job])  # it would start only to see that it is to stop
            if status.stage != Stage.GONE:
                continue
            for trial, unit in self.jobs.pop(job):
                self._settle_unit(trial, unit, status)

    def _settle_unit(self, trial: Trial, unit: int, status: Status) -> None:
        """A unit's job is gone: take its outcome, try again, or give the trial up."""
        attempt = trial.attempts_of(unit)[-1]
        attempt.ended = now()
        outcome = trial.outcome(unit)
        if outcome is None:
            attempt.reason, attempt.node_fault = status.reason or "ended without an outcome", status.node_fault
        elif outcome["status"] == "interrupted":
            attempt.reason, attempt.node_fault = outcome["reason"], True
        else:
            attempt.reason = outcome["reason"]
        if trial.ended:
            trial.save_state()
        elif outcome is not None and _final(outcome):
            self._settle_trial(trial)
        elif outcome is None and _unwanted(trial, unit):
            self._end(trial, FAILED, reason=CANCELLED)
        elif self._try_again(trial, unit, interrupted=outcome is not None):
            trial.state = WAITING
            trial.save_state()
            self.queue.append((trial, unit))
        else:
            tries = len(trial.attempts_of(unit))
            self._end(trial, FAILED, reason=f"{attempt.reason}" + (f"; {tries} attempts" if tries > 1 else ""))

    def _try_again(self, trial: Trial, unit: int, *, interrupted: bool) -> bool:
        attempts = trial.attempts_of(unit)
        if interrupted or self.stop is not None:
            return len(attempts) < MOST_INTERRUPTIONS
        lost = [attempt for attempt in attempts if attempt.node_fault]
        return attempts[-1].node_fault and len(lost) <= self.plan.max_retries

    def _settle_trial(self, trial: Trial) -> None:
        """One of its units has its outcome: end the trial, or let its other units go on."""
        outcomes = [outcome for outcome in trial.outcomes() if outcome is not None and _final(outcome)]
        failed = next((outcome for outcome in outcomes if outcome["status"] == "failed"), None)
        if failed is not None:
            self._end(trial, FAILED, reason=failed["reason"])
        elif any(outcome["status"] == "pruned" for outcome in outcomes):
            self._end(trial, PRUNED, reason=WORSE)
        elif len(outcomes) == len(trial.units):
            self._complete(trial, outcomes)
        else:
            trial.save_state()
            if self.plan.prunes and not trial.confirms:
                if self.plan.across_repeats and self.pruning.worse_so_far(trial, outcomes):
                    self._end(trial, PRUNED, reason=f"worse than the others after {len(outcomes)} seeds")
                else:
                    self.queue.append((trial, self._wanted_units(trial)[0]))

    def _complete(self, trial: Trial, outcomes: list[dict[str, Any]]) -> None:
        """The means over its units are the trial's values."""
        counts = {len(outcome["values"]) for outcome in outcomes}
        if not trial.confirms and counts != {len(self.study.directions)}:
            wanted = f"{len(self.study.directions)} as hydra.sweeper.direction says"
            self._end(trial, FAILED, reason=f"returned {sorted(counts)[0]} values, not {wanted}")
            return
        values = [statistics.fmean(column) for column in zip(*(outcome["values"] for outcome in outcomes), strict=True)]
        try:
            trial.constraints = self._violations(outcomes)
        except UserError as error:
            self._end(trial, FAILED, reason=f"hydra.sweeper.constraints: {error}")
            return
        self._end(trial, COMPLETE, values=values)

    def _violations(self, outcomes: list[dict[str, Any]]) -> list[float] | None:
        if not self.plan.constraints:
            return None
        results = [read_json(self.ledger.sweep / (o["run_dir"] or "") / "result.json") for o in outcomes]
        return [statistics.fmean(c.violation(result) for result in results) for c in self.plan.constraints]

    def _end(self, trial: Trial, state: str, *, values: list[float] | None = None, reason: str | None = None) -> None:
        trial.end(state, values=values, reason=reason)
        siblings = [job for job, units in self.jobs.items() if any(t is trial for t, _ in units)]
        for unit in range(len(trial.units)):
            if siblings and trial.outcome(unit) is None:
                Unit(trial.unit_folder(unit)).ask_to_stop(CANCELLED)
        self.queue = [(t, unit) for t, unit in self.queue if t is not trial]
        if not trial.confirms:
            tell(self.study, trial)
        self.observer.event(told(trial))

    # --- pruning ------------------------------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Pass reports on and ask running trials to stop that Optuna's pruner gives up."""
        for units in self.jobs.values():
            for trial, unit in units:
                asked = not trial.confirms and unit == 0 and not self.plan.across_repeats
                if asked and self.pruning.stops(trial, unit):
                    self.observer.event(f"trial {trial.number} is asked to stop: {WORSE}")

    # --- the end ------------------------------------------------------------------------------------------------------

    def _wind_down(self) -> None:
        """Asked to end: jobs that need this driver save themselves; the others go on and are adopted later."""
        self.queue.clear()
        leave = getattr(self.executor, "jobs_outlive_driver", False)
        if leave:
            return
        self.observer.event("stopping: the running trials save themselves")
        self.executor.cancel(list(self.jobs))
        while self.jobs:
            self._look()
            self.executor.wait(GLANCE)


def _unwanted(trial: Trial, unit: int) -> bool:
    """Whether somebody has cancelled this unit."""
    return Unit(trial.unit_folder(unit)).stop_reason() == CANCELLED


def _final(outcome: dict[str, Any]) -> bool:
    """Whether a unit need not run again."""
    return str(outcome["status"]) != "interrupted"


def told(trial: Trial) -> str:
    """A trial's end in one line."""
    name = f"{'confirmation' if trial.confirms else 'trial'} {trial.number} ({trial.what})"
    if trial.state == COMPLETE:
        return f"{name}: {', '.join(f'{value:.4f}' for value in trial.values or ())}"
    return f"{name} {trial.state}: {trial.reason}"
