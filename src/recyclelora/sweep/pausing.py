"""What the driver does with trials that pause: takes them off their place, and lets the good ones go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recyclelora.runs.unit import CANCELLED, AttemptEnd, Unit, read_reports
from recyclelora.sweep.ledger import PAUSED, Trial
from recyclelora.sweep.search import Search
from recyclelora.sweep.steering import one_at_a_time
from recyclelora.sweep.study import report
from recyclelora.sweep.view import View


class Pausing:
    """The pauses of one driver's trials.

    Args:
        search: the trials
        view: of the study, which is shown the values at rungs
        say: prints a line
    """

    def __init__(self, search: Search, view: View, say: Callable[[str], None]) -> None:
        self.search, self.view, self.say = search, view, say
        self._read: dict[Path, int] = {}

    def pause(self, trial: Trial, outcome: AttemptEnd) -> None:
        """A trial's job has ended at a rung: it is nobody's until it is promoted."""
        values = outcome.get("values")
        trial.rungs[str(outcome.get("step"))] = values[0] if values else None
        trial.state, trial.driver = PAUSED, None
        trial.save_state()
        self.view.use(lambda: report(self.search.study, trial), None)
        self.say(f"trial {trial.number} ({trial.what}) paused after step {trial.until}{_at(trial)}")

    def let_go_on(self, trial: Trial, unit: int) -> None:
        """Promote a running trial that has just reached its rung, before it leaves its place."""
        step, path = trial.until, trial.unit_folder(unit) / "reports.jsonl"
        if unit or step is None or str(step) in trial.rungs:
            return
        size = path.stat().st_size if path.exists() else 0
        if size == self._read.get(path, 0):
            return
        self._read[path] = size
        value = dict(read_reports(path.parent)).get(step)
        if value is None or Unit(path.parent).stop_reason() is not None:
            return
        trial.rungs[str(step)] = value
        with one_at_a_time(self.search.ledger.sweep, shared=self.search.plan.shared):
            self.search.refresh()
            promoted = self.search.promote_running(trial)
        if promoted:
            self.view.use(lambda: report(self.search.study, trial), None)
            self.say(f"trial {trial.number} ({trial.what}) goes on after step {step}: {value:.4f}")

    def cancelled(self) -> list[Trial]:
        """Paused trials that somebody has cancelled."""
        paused = (trial for trial in self.search.searched if trial.state == PAUSED)
        return [trial for trial in paused if Unit(trial.unit_folder(0)).stop_reason() == CANCELLED]


def rests(trial: Trial, outcome: AttemptEnd) -> bool:
    """Whether a unit that paused has nothing to do until its trial is promoted; it may have been already."""
    return trial.until is not None and (outcome.get("step") or 0) >= trial.until


def _at(trial: Trial) -> str:
    value = trial.rungs.get(str(trial.until))
    return "" if value is None else f": {value:.4f}"
