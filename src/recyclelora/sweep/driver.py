"""The driver: keeps the executor busy, decides what a job's end means; the one writer of the study.

Everything it decides is in the ledger before it acts on it, so that a killed driver's successor goes on where it was.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import optuna

from recyclelora.runs.mailbox import CANCELLED, Outcome, Unit, began, reached
from recyclelora.sweep.execution import Executor, Stage, Status
from recyclelora.sweep.goals import means, violations
from recyclelora.sweep.ledger import COMPLETE, FAILED, PRUNED, WAITING, Attempt, Ledger, Trial, now
from recyclelora.sweep.observer import Observer, told
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.pruning import Pruning
from recyclelora.sweep.retries import MOST_FALSE_STARTS, tries_again
from recyclelora.sweep.search import Search
from recyclelora.sweep.steering import Wishes, alive, driver_name, lives, one_at_a_time
from recyclelora.sweep.study import tell
from recyclelora.sweep.submitting import Submitting, Waiting
from recyclelora.sweep.view import View
from recyclelora.system.errors import UserError

WORSE = "worse than the others at the same point"

GLANCE = 0.5
"""Seconds between two looks at reports and progress."""
LOOK_BACK = 5.0
"""Seconds between two looks for late outcomes of jobs that were given up."""


class Driver:
    """Runs a plan to its end, or as far as it gets."""

    def __init__(
        self, plan: Plan, study: optuna.Study, ledger: Ledger, executor: Executor, observer: Observer,
        rebuild: Callable[[], optuna.Study] | None = None,
    ) -> None:  # fmt: skip
        """Args: ``rebuild`` makes the study anew in memory; None where several drivers share its database."""
        self.plan, self.study, self.ledger, self.executor, self.observer = plan, study, ledger, executor, observer
        self.search = Search(plan, study, ledger, driver_name())
        self.pruning = Pruning(study)
        self.submitting = Submitting(executor, self._say)
        self.waiting = Waiting(self._say)
        self.wishes = Wishes(ledger.sweep, plan.n_trials)
        self.jobs: dict[str, list[tuple[Trial, int]]] = {}
        """running jobs -> their units"""
        self.queue: list[tuple[Trial, int]] = []
        """units to submit"""
        self.stop: int | None = None
        """the signal that asked the driver to end"""
        self._looked_back = 0.0
        self._judged: set[Path] = set()
        """folders of trials whose outcomes, all complete, have been made values of, or could not be"""
        self.place: tuple[int, int] | None = None
        with contextlib.suppress(OSError):  # then the first look that is answered says it
            self.place = _place(ledger.sweep)
        self.view = View(study, rebuild, self._say, lambda: self.stop is not None)

    def _say(self, text: str) -> None:
        self.observer.event(text)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until everything is done, or until a signal or too many failures say otherwise.

        Raises:
            UserError: the sweep's folder was renamed or removed meanwhile, or can no longer be written.
        """
        with alive(self.ledger.sweep, self.search.driver):
            self._take_over()
            try:
                self._work()
            except UserError:
                if not getattr(self.executor, "jobs_outlive_driver", False):
                    self.executor.cancel(list(self.jobs))
                raise
        self.search.refresh()
        self.observer.update(self)

    def _work(self) -> None:
        with self._signals():
            while True:
                self._restore()
                self._look()
                self._take_late()
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

    def _restore(self) -> None:
        """Write down again what somebody has removed of running trials.

        Raises:
            UserError: the whole folder is another one.
        """
        try:
            place = _place(self.ledger.sweep)
        except OSError:  # a network folder that does not answer is no other one; the next look asks again
            return
        self.place = self.place or place
        if place is None or place != self.place:
            raise UserError(
                f"{self.ledger.sweep}: was renamed or removed while its sweep ran; the same command with study=<its "
                "new name> goes on with what had finished"
            )
        for units in self.jobs.values():
            for trial in {trial.folder: trial for trial, _ in units}.values():
                if trial.restored():
                    self.observer.event(f"{trial.folder}: was removed while it runs, and is written down again")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(number: int, _: FrameType | None) -> None:
            self.stop = number
            getattr(self.executor, "hurry", lambda: None)()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _obey(self) -> None:
        """Take a new number of trials that someone has asked for from another shell."""
        try:
            n_trials = self.wishes.new()
        except UserError as error:
            self.observer.event(f"{error}; it is not obeyed")
            return
        if n_trials is not None:
            self.search.n_trials = n_trials
            again = f"python -m recyclelora.sweep extend {self.ledger.sweep} <number> takes it back"
            self.observer.event(f"asked for {n_trials} trials" if n_trials else f"cancelled: no new trials; {again}")

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
        while busy < self.executor.capacity and self.submitting.open and self.stop is None:
            room = min(self.executor.units_per_job, self.executor.capacity - busy)
            units = [pair for _ in range(room) if (pair := self._next()) is not None]
            if not units:
                return
            job = self.submitting.start(units)
            if job is None:
                self.queue[:0] = units
                return
            self.jobs[job] = units
            busy += len(units)

    def _next(self) -> tuple[Trial, int] | None:
        """The unit to run next: what is queued, else one of a new trial."""
        if self.queue:
            return self.queue.pop(0)
        trial = self.view.use(self.search.next, None)
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
            self.waiting.note(job, self.jobs[job], status)
            if status.stage != Stage.GONE:
                continue
            for trial, unit in self.jobs.pop(job):
                self._settle_unit(trial, unit, status)

    def _settle_unit(self, trial: Trial, unit: int, status: Status) -> None:
        """A unit's job is gone: take its outcome, try again, or give the trial up."""
        trial.restored()
        attempt, folder = trial.attempts_of(unit)[-1], trial.unit_folder(unit)
        attempt.ended, attempt.reached = now(), reached(folder)
        outcome = trial.outcome(unit)
        if outcome is None:
            attempt.reason, attempt.node_fault = status.reason or "ended without an outcome", status.node_fault
            attempt.excused = status.excused or self.stop is not None or trial.garbled(unit)
            attempt.began = attempt.excused or began(folder, attempt.attempt)
        elif outcome["status"] == "interrupted":
            attempt.reason, attempt.node_fault, attempt.excused = outcome["reason"], True, True
        else:
            attempt.reason = outcome["reason"]
        if outcome is not None and outcome["attempt"] != attempt.attempt:  # an earlier one has finished after all
            self.executor.cancel([attempt.job])
        if trial.ended:
            trial.save_state()
        elif outcome is not None and _final(outcome):
            self._settle_trial(trial)
        elif outcome is None and _unwanted(trial, unit):
            self._end(trial, FAILED, reason=CANCELLED)
        elif tries_again(trial.attempts_of(unit), self.plan.max_retries):
            self._put_back(trial, unit, attempt)
        else:
            tries = len(trial.attempts_of(unit))
            self._end(trial, FAILED, reason=f"{attempt.reason}" + (f"; {tries} attempts" if tries > 1 else ""))

    def _put_back(self, trial: Trial, unit: int, attempt: Attempt) -> None:
        """Queue a unit again whose attempt has come to nothing.

        Raises:
            UserError: no job gets as far as its trial, which is not for the trials to fail.
        """
        trial.state = WAITING
        trial.save_state()
        self.queue.append((trial, unit))
        if self.stop is not None:
            return
        self.observer.event(f"trial {trial.number} is tried again: {attempt.reason}")
        trials = list(self.search.trials.values())
        died = sum(not a.began for t in trials for a in t.attempts)
        folders = (t.unit_folder(i) for t in trials for i in range(len(t.units)))
        everywhere = not self.jobs or len(getattr(self.executor, "died_on", ())) >= MOST_FALSE_STARTS
        enough = not attempt.began and died >= MOST_FALSE_STARTS and everywhere
        if enough and not any((folder / "started.json").exists() for folder in folders):
            raise UserError(f"{died} jobs died before their trials began, and none has begun one: {attempt.reason}")

    def _take_late(self) -> None:
        """Take what jobs that were given up have finished after all."""
        if time.monotonic() - self._looked_back < LOOK_BACK:
            return
        self._looked_back = time.monotonic()
        for trial, unit in list(self.queue):
            outcome = trial.outcome(unit)
            if outcome is not None and _final(outcome) and (trial, unit) in self.queue:
                self.queue.remove((trial, unit))
                self._settle_trial(trial)
        for trial in list(self.search.trials.values()):
            mine = not self.plan.shared or trial.driver == self.search.driver
            open_ = mine and trial.state == FAILED and trial.folder not in self._judged
            if open_ and any(a.node_fault or not a.began for a in trial.attempts):
                outcomes = [outcome for outcome in trial.outcomes() if outcome is not None]
                if len(outcomes) == len(trial.units) and all(o["status"] == "complete" for o in outcomes):
                    self._complete(trial, outcomes)

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
                if self.plan.across_repeats and self.view.use(
                    lambda: self.pruning.worse_so_far(trial, outcomes), False
                ):
                    self._end(trial, PRUNED, reason=f"worse than the others after {len(outcomes)} seeds")
                else:
                    self.queue.append((trial, self._wanted_units(trial)[0]))

    def _complete(self, trial: Trial, outcomes: list[Outcome]) -> None:
        """The means over its units are the trial's values."""
        self._judged.add(trial.folder)
        wanted = None if trial.confirms else len(self.study.directions)
        try:
            values = means(outcomes, wanted)
            trial.constraints = violations(self.plan.constraints, outcomes, self.ledger.sweep)
        except UserError as error:
            self._end(trial, FAILED, reason=str(error))
        else:
            self._end(trial, COMPLETE, values=values)

    def _end(self, trial: Trial, state: str, *, values: list[float] | None = None, reason: str | None = None) -> None:
        again = trial.ended
        trial.end(state, values=values, reason=reason)
        siblings = [job for job, units in self.jobs.items() if any(t is trial for t, _ in units)]
        for unit in range(len(trial.units)):
            if siblings and trial.outcome(unit) is None:
                Unit(trial.unit_folder(unit)).ask_to_stop(CANCELLED)
        self.queue = [(t, unit) for t, unit in self.queue if t is not trial]
        if not trial.confirms and not again:  # Optuna takes no second word; its study is mended when it is opened
            self.view.use(lambda: tell(self.study, trial), None)
        self.observer.event(told(trial))

    # --- pruning ------------------------------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Pass reports on and ask running trials to stop that Optuna's pruner gives up."""
        for units in self.jobs.values():
            for trial, unit in units:
                asked = not trial.confirms and unit == 0 and not self.plan.across_repeats
                if asked and self.view.use(functools.partial(self.pruning.stops, trial, unit), False):
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


def _place(folder: Path) -> tuple[int, int] | None:
    """Which folder lies under a name; None where none does.

    Raises:
        OSError: the file system does not say.
    """
    try:
        found = folder.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _unwanted(trial: Trial, unit: int) -> bool:
    """Whether somebody has cancelled this unit."""
    return Unit(trial.unit_folder(unit)).stop_reason() == CANCELLED


def _final(outcome: Outcome) -> bool:
    """Whether a unit need not run again."""
    return str(outcome["status"]) != "interrupted"
