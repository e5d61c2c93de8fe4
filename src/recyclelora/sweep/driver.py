"""The driver: keeps the executor busy, does what people ask for meanwhile; the one writer of the study."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

import optuna

from recyclelora.sweep.execution import Executor
from recyclelora.sweep.ledger import PAUSED, Ledger, Trial
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.search import Search
from recyclelora.sweep.settling import WORSE, Settling
from recyclelora.sweep.steering import Requests, alive, lives, one_at_a_time
from recyclelora.sweep.submitting import Submitting
from recyclelora.sweep.view import Pruning, View
from recyclelora.system.errors import UserError
from recyclelora.system.next_steps import typed_as
from recyclelora.system.progress import shown
from recyclelora.system.stopping import stopping_by

GLANCE = 0.5
"""Seconds between two looks at reports and progress."""


class Observer(Protocol):
    """Shows a person what a driver does."""

    def event(self, text: str) -> None:
        """Something happened that is worth a line."""

    def update(self, driver: Driver) -> None:
        """Show how things stand."""


class Driver:
    """Runs a plan to its end, or as far as it gets."""

    def __init__(
        self, plan: Plan, study: optuna.Study, ledger: Ledger, executor: Executor, observer: Observer,
        rebuild: Callable[[], optuna.Study],
    ) -> None:  # fmt: skip
        """Args: ``rebuild``: see :class:`View`."""
        self.plan, self.study, self.ledger, self.executor, self.observer = plan, study, ledger, executor, observer
        self.search = Search(plan, study, ledger, f"{os.uname().nodename}-{os.getpid()}")
        self.search.affords = self._affords
        self.pruning = Pruning(study)
        self.submitting = Submitting(executor, self._say)
        self.requests = Requests(ledger.sweep, plan.n_trials)
        self.stop: int | None = None
        """the signal that asked the driver to end"""
        self.place: tuple[int, int] | None = None
        with contextlib.suppress(OSError):  # then the first look that is answered says it
            self.place = _place(ledger.sweep)
        self.view = View(study, rebuild, self._say, self._stopped, shared=plan.shared)
        self.units = Settling(plan, self.search, executor, self.view, self.pruning, self._say, self._stopped)

    def _say(self, text: str) -> None:
        self.observer.event(text)

    def _stopped(self) -> bool:
        return self.stop is not None

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
                    self.executor.cancel(list(self.units.jobs))
                raise
        self.search.refresh()
        self.observer.update(self)

    def _work(self) -> None:
        with stopping_by(self._ask_to_stop):
            while True:
                self._restore()
                self.units.look()
                self.units.take_late()
                self._obey()
                if self.plan.prunes:
                    self._prune()
                if self.plan.rungs is not None:
                    self._let_go_on()
                if self.stop is not None:
                    self._wind_down()
                    break
                self._submit()
                self.observer.update(self)
                if not self.units.jobs and (not self.units.queue or self.search.broke):
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
        for units in self.units.jobs.values():
            for trial in {trial.folder: trial for trial, _ in units}.values():
                if trial.restored():
                    self.observer.event(f"{trial.folder}: was removed while it runs, and is written down again")

    def _ask_to_stop(self, number: int, _: FrameType | None) -> None:
        self.stop = number
        getattr(self.executor, "hurry", lambda: None)()

    def _obey(self) -> None:
        """Take a new number of trials that someone has asked for from another shell."""
        try:
            n_trials = self.requests.new()
        except UserError as error:
            self.observer.event(f"{error}; it is not obeyed")
            return
        if n_trials is not None:
            self.search.n_trials = n_trials
            again = f"{typed_as('sweep', 'extend', shown(self.ledger.sweep), '<number>')} takes it back"
            self.observer.event(f"asked for {n_trials} trials" if n_trials else f"cancelled: no new trials; {again}")

    def _take_over(self) -> None:
        """Adopt the jobs of an earlier driver, take the outcomes of those that have ended, queue the rest."""
        with one_at_a_time(self.ledger.sweep, shared=self.plan.shared):
            self.search.refresh()  # another successor may have been first
            self.units.queue += self.units.racing.failed_again()
            left = [trial for trial in self.search.trials.values() if not trial.ended and trial.state != PAUSED]
            mine = [trial for trial in left if self._mine(trial)]
        for trial in mine:
            wanted = self.units.wanted(trial)
            if not wanted:  # its last unit ended while no driver was watching
                self.units.settle_trial(trial)
            for unit in wanted:
                last = trial.attempts_of(unit)[-1:]
                job = trial.job_of(unit) if last and last[0].ended is None else ""
                if job:
                    last[0].job = job
                    self.units.jobs.setdefault(job, []).append((trial, unit))
                else:
                    self.units.queue.append((trial, unit))

    def _mine(self, trial: Trial) -> bool:
        """Whether no other living driver has this trial; takes it then."""
        name = self.search.driver
        if self.plan.shared and trial.driver not in (None, name) and lives(self.ledger.sweep, str(trial.driver)):
            return False
        trial.driver = name
        if not trial.attempts and trial.until is None:  # its driver was killed before it had a state
            trial.until = self.search.first_pause(trial)
        trial.save_state()
        return True

    # --- submitting ---------------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """Fill the executor."""
        busy = sum(len(units) for units in self.units.jobs.values())
        while busy < self.executor.capacity and self.submitting.open and self.stop is None:
            room = min(self.executor.units_at_once, self.executor.capacity - busy)
            units = [pair for _ in range(room) if (pair := self._next()) is not None]
            if not units:
                return
            jobs = self.submitting.start(units)
            taken = sum(map(len, jobs.values()))
            self.units.queue[:0] = units[taken:]
            if not jobs:
                return
            self.units.jobs |= jobs
            busy += taken

    def _next(self) -> tuple[Trial, int] | None:
        """The unit to run next: what is queued, else one of a new trial."""
        if self.units.queue:
            return self.units.queue.pop(0) if self.search.pays(0, runs=0) else None
        trial = self.view.use(self.search.next, None)
        while self.search.remarks:
            self.observer.event(self.search.remarks.pop(0))
        if trial is None:
            self.units.end_decided()
            return self.units.racing.next()
        first, *rest = self.units.wanted(trial)
        self.units.queue += [(trial, unit) for unit in rest]
        return trial, first

    def _affords(self, steps: int) -> bool:
        """Whether the sweep's budget allows so many more steps; those of queued units are reserved already."""
        budget = self.plan.budget
        return budget is None or budget.allows(self.search.trials.values(), steps)

    # --- pruning ------------------------------------------------------------------------------------------------------

    def _prune(self) -> None:
        """Pass reports on and ask running trials to stop that Optuna's pruner gives up."""
        for units in self.units.jobs.values():
            for trial, unit in units:
                asked = not trial.confirms and unit == 0 and not self.plan.across_repeats
                if asked and self.view.use(functools.partial(self.pruning.stops, trial, unit), False):
                    self.observer.event(f"trial {trial.number} is asked to stop: {WORSE}")

    def _let_go_on(self) -> None:
        """Promote running trials that have just reached a rung, so that they need not leave their place."""
        for units in self.units.jobs.values():
            for trial, unit in units:
                if not trial.confirms:
                    self.units.pausing.let_go_on(trial, unit)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _wind_down(self) -> None:
        """Asked to end: jobs that need this driver save themselves; the others go on and are adopted later."""
        self.units.queue.clear()
        leave = getattr(self.executor, "jobs_outlive_driver", False)
        if leave:
            return
        self.observer.event("stopping: the running trials save themselves")
        self.executor.cancel(list(self.units.jobs))
        while self.units.jobs:
            self.units.look()
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
