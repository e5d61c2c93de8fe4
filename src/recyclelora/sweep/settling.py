"""What becomes of units: in the queue, given to the executor, in a job, and when the job is gone; and of their trials.

Everything that is decided is in the ledger before it is acted on, so that a killed driver's successor goes on from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from recyclelora.runs.unit import CANCELLED, AttemptEnd, Unit, began
from recyclelora.sweep.attempts import MOST_FALSE_STARTS, Attempt, now, tries_again
from recyclelora.sweep.cost import lasted, reached
from recyclelora.sweep.execution import Executor, Stage, Status
from recyclelora.sweep.goals import in_words, means, violations
from recyclelora.sweep.ledger import COMPLETE, FAILED, PRUNED, WAITING, Trial
from recyclelora.sweep.pausing import Pausing, rests
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.race.running import Racing
from recyclelora.sweep.search import Search
from recyclelora.sweep.study import tell, tell_late
from recyclelora.sweep.submitting import Units
from recyclelora.sweep.view import Pruning, View
from recyclelora.system.errors import UserError

WORSE = "worse than the others at the same point"
LOOK_BACK = 5.0
"""Seconds between two looks for late outcomes of jobs that were given up."""


class Settling:
    """The units of one driver.

    Args:
        plan: what is to be done
        search: the trials
        executor: runs the jobs
        view: of the study, which is told how trials end
        pruning: asks the study's pruner
        say: prints a line
        stopped: whether the driver has been asked to end
    """

    def __init__(
        self, plan: Plan, search: Search, executor: Executor, view: View, pruning: Pruning,
        say: Callable[[str], None], stopped: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.plan, self.search, self.executor, self.view, self.pruning = plan, search, executor, view, pruning
        self.say, self.stopped = say, stopped
        self.racing = Racing(plan, search)
        self.pausing = Pausing(search, view, say)
        self.jobs: dict[str, Units] = {}
        """running jobs -> their units"""
        self.queue: Units = []
        """units to submit"""
        self._waits: dict[str, str | None] = {}
        """why jobs wait in the queue, as it was last written down"""
        self._looked_back = 0.0
        self._judged: set[Path] = set()
        """folders of trials whose outcomes, all complete, have been made values of, or could not be"""

    def wanted(self, trial: Trial) -> list[int]:
        """Units that have no outcome yet and may run now."""
        missing = [i for i, outcome in enumerate(trial.outcomes()) if outcome is None or not _final(trial, outcome)]
        return missing[:1] if self.plan.one_by_one and not trial.confirms else missing

    def look(self) -> None:
        """See which jobs have ended and decide what that means."""
        for job, status in self.executor.status(list(self.jobs)).items():
            if status.stage == Stage.QUEUED and all(_unwanted(trial, unit) for trial, unit in self.jobs[job]):
                self.executor.cancel([job])  # it would start only to see that it is to stop
            self._note_wait(job, status)
            if status.stage != Stage.GONE:
                continue
            for trial, unit in self.jobs.pop(job):
                self._settle_unit(trial, unit, status)

    def _note_wait(self, job: str, status: Status) -> None:
        """Write down why a job waits, for those who look from other shells; say what waits for a person."""
        reason = status.reason if status.stage == Stage.QUEUED else None
        if self._waits.get(job) == reason:
            return
        self._waits[job] = reason
        for trial, unit in self.jobs[job]:
            Unit(trial.unit_folder(unit)).waits(reason)
        if status.stuck or status.news:
            numbers = ", ".join(str(trial.number) for trial, _ in self.jobs[job])
            self.say(f"job {job} (trial {numbers}){' cannot start' if status.stuck else ''}: {reason}")

    def _settle_unit(self, trial: Trial, unit: int, status: Status) -> None:
        """A unit's job is gone: take its outcome, try again, or give the trial up."""
        trial.restored()
        attempt, folder = trial.attempts_of(unit)[-1], trial.unit_folder(unit)
        attempt.ended, attempt.reached, attempt.seconds = now(), reached(folder), lasted(folder, attempt.attempt)
        outcome = trial.outcome(unit)
        if outcome is None:
            attempt.reason, attempt.node_fault = status.reason or "ended without an outcome", status.node_fault
            attempt.excused = status.excused or self.stopped() or trial.garbled(unit)
            attempt.began = attempt.excused or began(folder, attempt.attempt)
        elif outcome["status"] == "interrupted":
            attempt.reason, attempt.node_fault, attempt.excused = outcome["reason"], True, True
        elif outcome["status"] == "paused":
            attempt.reason, attempt.excused = outcome["reason"], True
        else:
            attempt.reason = outcome["reason"]
        if outcome is not None and outcome["attempt"] != attempt.attempt:  # an earlier one has finished after all
            self.executor.cancel([attempt.job])
        if trial.ended:
            trial.save_state()
        elif outcome is not None and _final(trial, outcome):
            self.settle_trial(trial)
            if not trial.ended and outcome["status"] == "complete":
                raced = self.racing.told(outcome) if trial.confirms else ""
                self.say(f"{_name(trial)} {trial.units[unit][-1]}: {raced or in_words(outcome.get('values') or ())}")
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
        if self.stopped():
            return
        self.say(f"trial {trial.number} is tried again: {attempt.reason}")
        trials = list(self.search.trials.values())
        died = sum(not a.began for t in trials for a in t.attempts)
        folders = (t.unit_folder(i) for t in trials for i in range(len(t.units)))
        everywhere = not self.jobs or len(getattr(self.executor, "died_on", ())) >= MOST_FALSE_STARTS
        enough = not attempt.began and died >= MOST_FALSE_STARTS and everywhere
        if enough and not any((folder / "started.json").exists() for folder in folders):
            raise UserError(f"{died} jobs died before their trials began, and none has begun one: {attempt.reason}")

    def take_late(self) -> None:
        """Take what jobs that were given up have finished after all."""
        if time.monotonic() - self._looked_back < LOOK_BACK:
            return
        self._looked_back = time.monotonic()
        for trial, unit in list(self.queue):
            outcome = trial.outcome(unit)
            if outcome is not None and _final(trial, outcome) and (trial, unit) in self.queue:
                self.queue.remove((trial, unit))
                self.settle_trial(trial)
        for trial in self.pausing.cancelled() if self.plan.rungs else ():
            self._end(trial, FAILED, reason=CANCELLED)
        for trial in list(self.search.trials.values()):
            mine = not self.plan.shared or trial.driver == self.search.driver
            open_ = mine and trial.state == FAILED and trial.folder not in self._judged
            if open_ and any(a.node_fault or not a.began for a in trial.attempts):
                outcomes = [outcome for outcome in trial.outcomes() if outcome is not None]
                if len(outcomes) == len(trial.units) and all(o["status"] == "complete" for o in outcomes):
                    self._complete(trial, outcomes)

    def settle_trial(self, trial: Trial) -> None:
        """One of its units has its outcome: end the trial, or let its other units go on."""
        outcomes = [outcome for outcome in trial.outcomes() if outcome is not None and _final(trial, outcome)]
        failed = next((outcome for outcome in outcomes if outcome["status"] == "failed"), None)
        if failed is not None:
            self._end(trial, FAILED, reason=failed["reason"])
        elif any(outcome["status"] == "pruned" for outcome in outcomes):
            self._end(trial, PRUNED, reason=WORSE)
        elif paused := [outcome for outcome in outcomes if outcome["status"] == "paused"]:
            self.pausing.pause(trial, paused[0])
        elif len(outcomes) == len(trial.units):
            if self.plan.race is not None and trial.confirms:
                self._rest(trial)
            else:
                self._complete(trial, outcomes)
        else:
            trial.save_state()
            if self.plan.one_by_one and not trial.confirms:
                if self.plan.across_repeats and self.view.use(
                    lambda: self.pruning.worse_so_far(trial, outcomes), False
                ):
                    self._end(trial, PRUNED, reason=f"worse than the others after {len(outcomes)} seeds")
                else:
                    self.queue.append((trial, self.wanted(trial)[0]))

    def _rest(self, trial: Trial) -> None:
        """All seeds of an entrant have finished, for now."""
        lacking = self.racing.lacks(trial)
        if lacking is not None:
            self._end(trial, FAILED, reason=lacking)
        else:
            trial.state = WAITING
            trial.save_state()

    def end_decided(self) -> None:
        """End the entrants of a race about which everything is decided, or that have all their seeds."""
        for trial, standing in self.racing.done():
            self._complete(trial, [outcome for outcome in trial.outcomes() if outcome is not None], standing)

    def _complete(self, trial: Trial, outcomes: list[AttemptEnd], remark: str | None = None) -> None:
        """The means over its units are the trial's values."""
        self._judged.add(trial.folder)
        wanted = None if trial.confirms else len(self.search.directions)
        try:
            values = means(outcomes, wanted)
            trial.constraints = violations(self.plan.constraints, outcomes, self.search.ledger.sweep)
        except UserError as error:
            self._end(trial, FAILED, reason=str(error))
        else:
            self._end(trial, COMPLETE, values=values, reason=remark)

    def _end(self, trial: Trial, state: str, *, values: list[float] | None = None, reason: str | None = None) -> None:
        again = trial.ended
        trial.end(state, values=values, reason=reason)
        siblings = [job for job, units in self.jobs.items() if any(t is trial for t, _ in units)]
        for unit in range(len(trial.units)):
            if siblings and trial.outcome(unit) is None:
                Unit(trial.unit_folder(unit)).ask_to_stop(CANCELLED)
        self.queue = [(t, unit) for t, unit in self.queue if t is not trial]
        if not trial.confirms and (state == COMPLETE or not again):
            self.view.use(lambda: (tell_late if again else tell)(self.search.study, trial), None)
        self.say(_told(trial))


def _unwanted(trial: Trial, unit: int) -> bool:
    """Whether somebody has cancelled this unit."""
    return Unit(trial.unit_folder(unit)).stop_reason() == CANCELLED


def _final(trial: Trial, outcome: AttemptEnd) -> bool:
    """Whether a unit need not run again, as things stand."""
    return rests(trial, outcome) if outcome["status"] == "paused" else str(outcome["status"]) != "interrupted"


def _name(trial: Trial) -> str:
    return f"{'confirmation' if trial.confirms else 'trial'} {trial.number} ({trial.what})"


def _told(trial: Trial) -> str:
    """A trial's end in one line."""
    name = _name(trial)
    if trial.state == COMPLETE:
        return f"{name}: {in_words(trial.values or ())}" + (f"; {trial.reason}" if trial.reason else "")
    return f"{name} {trial.state}: {trial.reason}"
