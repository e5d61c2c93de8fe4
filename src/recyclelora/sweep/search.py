"""Which trial comes next: a planned point, one of the sampler's choice, a failed one again, or a confirmation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import distribution_to_json

from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger, Trial
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.steering import one_at_a_time
from recyclelora.sweep.study import handle_of, never_written, waiting
from recyclelora.sweep.unit import CONFIRM


class Search:
    """The trials of a sweep as one of its drivers knows them, and the next one.

    Args:
        plan: what is to be done
        study: Optuna's
        ledger: where trials are written down before anything of them runs
        driver: the name under which new trials are written
    """

    def __init__(self, plan: Plan, study: optuna.Study, ledger: Ledger, driver: str) -> None:
        self.plan, self.study, self.ledger, self.driver = plan, study, ledger, driver
        self.trials = {trial.folder.name: trial for trial in ledger.trials()}
        self.n_trials = plan.n_trials

    @property
    def searched(self) -> list[Trial]:
        """Trials of the search, by number."""
        return [trial for trial in self.trials.values() if not trial.confirms]

    @property
    def directions(self) -> list[str]:
        """``maximize`` or ``minimize``, one an objective."""
        return [direction.name.lower() for direction in self.study.directions]

    @property
    def failures(self) -> int:
        """Failed trials that no later one repeats."""
        repeated = {trial.retry_of for trial in self.searched}
        return sum(trial.state == FAILED and trial.number not in repeated for trial in self.searched)

    @property
    def too_many_failures(self) -> bool:
        """Whether ``max_failures`` is reached."""
        limit = self.plan.max_failures
        return limit is not None and self.failures >= limit

    def next(self) -> Trial | None:
        """A new trial, written down; None when there are enough, or too many have failed."""
        if self.too_many_failures:
            return None
        with one_at_a_time(self.ledger.sweep, shared=self.plan.shared):
            self.refresh()
            trial = self._searching() or (self._confirmation() if self.plan.confirm else None)
            if trial is not None:
                trial.driver = self.driver
                trial.save_state()  # before its turn is over: a driver that starts now leaves it alone
                self.trials[trial.folder.name] = trial
            return trial

    def refresh(self) -> None:
        """See what other drivers have asked for and found."""
        if self.plan.shared:
            mine = {name for name, t in self.trials.items() if t.driver == self.driver and not t.ended}
            self.trials |= {t.folder.name: t for t in self.ledger.trials() if t.folder.name not in mine}

    def _searching(self) -> Trial | None:
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

    def _failed_to_repeat(self, known: Sequence[Trial]) -> Trial | None:
        if not self.plan.retry_failed:
            return None
        repeated = {trial.retry_of for trial in known}
        return next((t for t in known if t.state == FAILED and t.number not in repeated and t.retry_of is None), None)

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
            handle.number, params, self.plan.space.varied(params), _units(overrides, self.plan.seeds),
            distributions, plan=plan, retry_of=retry_of,
        )  # fmt: skip

    def _confirmation(self) -> Trial | None:
        """A rerun of one of the best trials on fresh seeds, once the search is over."""
        if any(not trial.ended for trial in self.searched):
            return None
        done = {trial.number for trial in self.trials.values() if trial.confirms}
        groups: dict[str, list[Trial]] = {}
        for trial in best_trials(self.searched, self.directions):
            groups.setdefault(repr([trial.params.get(key) for key in self.plan.confirm_by]), []).append(trial)
        best = [trial for group in groups.values() for trial in group[: self.plan.confirm]]
        new = next((trial for trial in best if trial.number not in done), None)
        if new is None:
            return None
        units = _units(self.plan.space.overrides(new.params), self.plan.confirm_seeds)
        return self.ledger.add(new.number, new.params, new.overrides, units, new.distributions, CONFIRM)


def _units(overrides: list[str], seeds: Sequence[int] | None) -> list[list[str]]:
    """The runs of a trial: one, or one for each seed."""
    if seeds is None:
        return [overrides]
    others = [text for text in overrides if not text.startswith("seed=")]
    return [[*others, f"seed={seed}"] for seed in seeds]


def best_trials(trials: Sequence[Trial], directions: Sequence[str]) -> list[Trial]:
    """Complete trials that keep the constraints, the best first; of several objectives, by the first."""
    kept = [t for t in trials if t.state == COMPLETE and t.values and t.feasible]
    return sorted(kept, key=lambda t: (t.values or [0.0])[0], reverse=directions[0] == "maximize")
