"""The driver: asks for trials, keeps the executor busy, decides what a job's end means; the one writer of the study.

Everything it decides is in the ledger before it acts on it, so that a killed driver's successor goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import optuna
from optuna.distributions import distribution_to_json

from recyclelora.errors import UserError
from recyclelora.storage import holder, read_json, taking_turns
from recyclelora.sweep.execution import Executor, Stage, Status, Work
from recyclelora.sweep.ledger import COMPLETE, FAILED, PRUNED, RUNNING, WAITING, Attempt, Ledger, Trial, now
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.study import handle_of, never_written, tell, waiting
from recyclelora.sweep.unit import CANCELLED, CONFIRM, Unit, read_reports

MOST_INTERRUPTIONS = 100
"""A unit that was stopped as often, each time saving itself, is given up."""
ASK_LOCK = ".ask.lock"
"""Held by the driver that asks for a trial, or looks for trials of dead ones, where several drivers share a study."""

DRIVERS = "drivers"
"""Folder with a lock for each living driver."""
CONTROL = "control.json"
"""A wish for another number of trials, from another shell."""

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
        self.trials = {trial.folder.name: trial for trial in ledger.trials()}
        self.open = [trial for trial in self.trials.values() if not trial.ended]
        self.jobs: dict[str, list[tuple[Trial, int]]] = {}
        """running jobs -> their units"""
        self.queue: list[tuple[Trial, int]] = []
        """units to submit"""
        self.stop: int | None = None
        """the signal that asked the driver to end"""
        self.n_trials = plan.n_trials
        self.name = f"{os.uname().nodename}-{os.getpid()}"
        self._reported: dict[Path, int] = {}
        self._obeyed = self._asked_for() if plan.shared else None  # several drivers leave the wish there for each other

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until everything is done, or until a signal or too many failures say otherwise."""
        with _alive(self.ledger.sweep, self.name):
            self._take_over()
            self._work()
        self._read_new()
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
        asked = self._asked_for()
        if asked is None or asked == self._obeyed:
            return
        self._obeyed = asked
        self.n_trials = int(read_json(self._control)["n_trials"])
        self.observer.event(f"asked for {self.n_trials} trials")
        if not self.plan.shared:
            self._control.unlink()

    @property
    def _control(self) -> Path:
        return self.ledger.sweep / CONTROL

    def _asked_for(self) -> int | None:
        """When somebody last asked for another number of trials."""
        try:
            return self._control.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _take_over(self) -> None:
        """Adopt the jobs of an earlier driver, take the outcomes of those that have ended, queue the rest."""
        with self._asking():
            self.open = [trial for trial in self.open if self._mine(trial)]
        for trial in self.open:
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
        other = trial.driver if trial.driver != self.name and self.plan.shared else None
        if other is not None and holder(self.ledger.sweep / DRIVERS, other) is not None:
            return False
        trial.driver = self.name
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
        if self.too_many_failures:
            return None
        trial = self._ask() or self._confirm()
        if trial is None:
            return None
        trial.driver = self.name
        self.trials[trial.folder.name] = trial
        self.open.append(trial)
        first, *rest = self._wanted_units(trial)
        self.queue += [(trial, unit) for unit in rest]
        return trial, first

    @property
    def searched(self) -> list[Trial]:
        """Trials of the search, by number."""
        return [trial for trial in self.trials.values() if not trial.confirms]

    @property
    def directions(self) -> list[str]:
        """``maximize`` or ``minimize``, one an objective."""
        return [direction.name.lower() for direction in self.study.directions]

    def failures(self) -> int:
        """Failed trials that no later one repeats."""
        repeated = {trial.retry_of for trial in self.searched}
        return sum(trial.state == FAILED and trial.number not in repeated for trial in self.searched)

    @property
    def too_many_failures(self) -> bool:
        """Whether ``max_failures`` is reached."""
        limit = self.plan.max_failures
        return limit is not None and self.failures() >= limit

    def _ask(self) -> Trial | None:
        """A new trial of the search, written down before anything runs; None when there are enough."""
        with self._asking():
            self._read_new()
            known = self.searched
            retry = self._failed_to_repeat(known)
            if retry is not None:
                return self._written(retry.params, plan=retry.plan, retry_of=retry.number)
            if sum(trial.retry_of is None for trial in known) >= self.n_trials:
                return None
            taken = {trial.plan for trial in known}
            index = next((i for i in range(len(self.plan.planned)) if i not in taken), None)
            if index is not None:
                return self._written(self.plan.planned[index], plan=index)
            return None if self.plan.sampler is None else self._written(None)

    def _written(self, point: dict[str, Any] | None, *, plan: int | None = None, retry_of: int | None = None) -> Trial:
        """Ask Optuna for a trial at a given point, or for one of the sampler's choice, and write it down."""
        if self.plan.sampler is not None:
            self.study.sampler = self.plan.sampler(len(self.study.get_trials(deepcopy=False)))
        if orphans := never_written(self.study, self.searched):
            handle = handle_of(self.study, orphans[0])  # the same point: the next one follows from the ledger alone
        else:
            if point is not None and not waiting(self.study):
                self.study.enqueue_trial(point)
            handle = self.study.ask()
        params = self.plan.space.suggest(handle)
        distributions = {key: distribution_to_json(handle.distributions[key]) for key in params}
        overrides = self.plan.space.overrides(params)
        return self.ledger.add(
            handle.number, params, self.plan.space.varied(params), self._units(overrides, self.plan.seeds),
            distributions, plan=plan, retry_of=retry_of,
        )  # fmt: skip

    def _units(self, overrides: list[str], seeds: Sequence[int] | None) -> list[list[str]]:
        if seeds is None:
            return [overrides]
        others = [text for text in overrides if not text.startswith("seed=")]
        return [[*others, f"seed={seed}"] for seed in seeds]

    def _failed_to_repeat(self, known: Sequence[Trial]) -> Trial | None:
        if not self.plan.retry_failed:
            return None
        repeated = {trial.retry_of for trial in known}
        return next((t for t in known if t.state == FAILED and t.number not in repeated and t.retry_of is None), None)

    def _confirm(self) -> Trial | None:
        """A rerun of one of the best trials on fresh seeds, once the search is over."""
        if not self.plan.confirm:
            return None
        with self._asking():
            self._read_new()
            return self._confirmation()

    def _confirmation(self) -> Trial | None:
        if any(not trial.ended for trial in self.searched):
            return None
        done = {trial.number for trial in self.trials.values() if trial.confirms}
        ranked = best_trials(self.searched, self.directions)
        groups: dict[str, list[Trial]] = {}
        for trial in ranked:
            groups.setdefault(repr([trial.params.get(key) for key in self.plan.confirm_by]), []).append(trial)
        best = [trial for group in groups.values() for trial in group[: self.plan.confirm]]
        new = next((trial for trial in best if trial.number not in done), None)
        if new is None:
            return None
        units = self._units(self.plan.space.overrides(new.params), self.plan.confirm_seeds)
        return self.ledger.add(new.number, new.params, new.overrides, units, new.distributions, CONFIRM)

    # --- several drivers on one database ------------------------------------------------------------------------------

    def _asking(self) -> contextlib.AbstractContextManager[None]:
        """Drivers of one study ask one after another, so that together they ask for no more than there are."""
        return taking_turns(self.ledger.sweep / ASK_LOCK) if self.plan.shared else contextlib.nullcontext()

    def _read_new(self) -> None:
        """See what other drivers have asked for and found."""
        if self.plan.shared:
            mine = {trial.folder.name for trial in self.open}
            self.trials |= {t.folder.name: t for t in self.ledger.trials() if t.folder.name not in mine}

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
        self.open = [trial for trial in self.open if not trial.ended]

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
            self._end(trial, PRUNED, reason="worse than the others at the same point")
        elif len(outcomes) == len(trial.units):
            self._complete(trial, outcomes)
        else:
            trial.save_state()
            if self.plan.prunes and not trial.confirms:
                if self.plan.across_repeats and self._worse_so_far(trial, outcomes):
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
                if not trial.confirms and unit == 0 and not self.plan.across_repeats:
                    self.consider(trial, unit)

    def consider(self, trial: Trial, unit: int) -> None:
        """Pass a unit's new reports on; ask it to stop when the pruner says so."""
        folder = trial.unit_folder(unit)
        path = folder / "reports.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size == self._reported.get(folder, 0) or Unit(folder).stop_reason() is not None:
            return
        self._reported[folder] = size
        handle = handle_of(self.study, trial.number)
        known = self.study._storage.get_trial(handle._trial_id).intermediate_values
        for step, value in read_reports(folder):
            if step not in known:
                handle.report(value, step)
        if handle.should_prune():
            Unit(folder).ask_to_stop(PRUNED)
            self.observer.event(f"trial {trial.number} is asked to stop: worse than the others at the same point")

    def _worse_so_far(self, trial: Trial, outcomes: list[dict[str, Any]]) -> bool:
        handle = handle_of(self.study, trial.number)
        for index, outcome in enumerate(outcomes):
            handle.report(outcome["values"][0], index)
        prune: bool = handle.should_prune()
        return prune

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


def living(sweep: Path) -> list[str]:
    """Drivers of a sweep that live: process and host."""
    names = (path.name for path in sorted((sweep / DRIVERS).glob("*")) if holder(path.parent, path.name) is not None)
    return [f"process {process} on {host}" for host, _, process in (name.rpartition("-") for name in names)]


@contextlib.contextmanager
def _alive(sweep: Path, name: str) -> Iterator[None]:
    """Hold a lock that tells other drivers that this one lives."""
    signs = sweep / DRIVERS
    signs.mkdir(exist_ok=True)
    with taking_turns(signs / name):
        yield
    (signs / name).unlink(missing_ok=True)


def _unwanted(trial: Trial, unit: int) -> bool:
    """Whether somebody has cancelled this unit."""
    return Unit(trial.unit_folder(unit)).stop_reason() == CANCELLED


def _final(outcome: dict[str, Any]) -> bool:
    """Whether a unit need not run again."""
    return str(outcome["status"]) != "interrupted"


def best_trials(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """Complete trials that keep the constraints, the best first; of several objectives, by the first."""
    kept = [t for t in trials if t.state == COMPLETE and t.values and t.feasible]
    return sorted(kept, key=lambda t: (t.values or [0.0])[0], reverse=directions[0] == "maximize")


def told(trial: Trial) -> str:
    """A trial's end in one line."""
    name = f"{'confirmation' if trial.confirms else 'trial'} {trial.number} ({trial.what})"
    if trial.state == COMPLETE:
        return f"{name}: {', '.join(f'{value:.4f}' for value in trial.values or ())}"
    return f"{name} {trial.state}: {trial.reason}"
