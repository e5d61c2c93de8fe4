"""Which trial comes next: a planned point, one of the sampler's choice, a failed one again, or a confirmation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import distribution_to_json

from recyclelora.runs.unit import CONFIRM
from recyclelora.sweep.ledger import COMPLETE, FAILED, PAUSED, WAITING, Ledger, Trial
from recyclelora.sweep.planning import Plan, units_of
from recyclelora.sweep.proposals import hint, next_number, waiting
from recyclelora.sweep.race.rules import is_named
from recyclelora.sweep.samplers import seed_of
from recyclelora.sweep.steering import one_at_a_time
from recyclelora.sweep.study import handle_of, same_as
from recyclelora.system.errors import UserError

MOST_ASKED = 100
"""So often in a row a sampler may propose what was tried before, from half of it on at random."""


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
        self.remarks: list[str] = []
        """what a person should know of the choice of trials; whoever shows it empties the list"""
        self.affords: Callable[[int], bool] = lambda steps: True
        """whether so many more steps may be trained; the driver says so"""
        self.broke = False
        """whether the budget did not allow what was to come next"""
        self.exhausted = False
        """whether the sampler has nothing new to propose"""
        self._identities: dict[str, str] = {}
        self._skipped: set[int] = set()
        self._met: set[int] = set()

    @property
    def searched(self) -> list[Trial]:
        """Trials of the search, by number."""
        return [trial for trial in self.trials.values() if not trial.confirms]

    @property
    def directions(self) -> list[str]:
        """``maximize`` or ``minimize``, one an objective."""
        return [direction.name.lower() for direction in self.study.directions]

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Complete ones that keep the constraints, the best first; of several objectives, by the first."""
        kept = [t for t in trials if t.state == COMPLETE and t.values and t.feasible]
        return sorted(kept, key=lambda t: (t.values or [0.0])[0], reverse=self.directions[0] == "maximize")

    @property
    def failures(self) -> int:
        """Failed trials that no later one repeats."""
        counted = list(self.trials.values()) if self.plan.race is not None else self.searched
        repeated = {trial.retry_of for trial in self.searched}
        return sum(trial.state == FAILED and (trial.confirms or trial.number not in repeated) for trial in counted)

    @property
    def too_many_failures(self) -> bool:
        """Whether ``max_failures`` is reached."""
        limit = self.plan.max_failures
        return limit is not None and self.failures >= limit

    def next(self) -> Trial | None:
        """A promoted or new trial, written down; None when there are enough, or too many have failed."""
        if self.too_many_failures or self.n_trials == 0:  # 0: somebody has cancelled the sweep
            return None
        self.broke = False
        with one_at_a_time(self.ledger.sweep, shared=self.plan.shared):
            self.refresh()
            trial = self._chosen()
            if trial is not None:
                trial.driver = self.driver
                trial.save_state()  # before its turn is over: a driver that starts now leaves it alone
                self.trials[trial.folder.name] = trial
            return trial

    def _chosen(self) -> Trial | None:
        """What is to run next, by its cost, too."""
        if not self.plan.races_at_once:
            trial = self._promoted() or self._searching() or self._promoted(over=True)
            if trial is not None or self.broke:
                return trial
        return self._confirmation() if self.plan.confirm or self.plan.race else None

    def pays(self, until: int | None, at: int = 0, runs: int | None = None) -> bool:
        """Whether the budget has what it costs to get from one step to another; else nothing more is asked for."""
        budget, runs = self.plan.budget, len(self.plan.seeds or [0]) if runs is None else runs
        self.broke = budget is not None and not self.affords(budget.cost(until, at, runs))
        return not self.broke

    def refresh(self) -> None:
        """See what other drivers have asked for and found."""
        if self.plan.shared:
            mine = {name for name, t in self.trials.items() if t.driver == self.driver and not t.ended}
            self.trials |= {t.folder.name: t for t in self.ledger.trials() if t.folder.name not in mine}

    def _promoted(self, over: bool = False) -> Trial | None:
        """A paused trial that is to go on, by what is known at the rungs."""
        if self.plan.rungs is None:
            return None
        maximize = self.directions[0] == "maximize"
        trial = None if self.broke else self.plan.rungs.to_promote(self.searched, maximize=maximize, over=over)
        if trial is None:
            return None
        step = trial.until or 0
        further = self.plan.rungs.after(trial.number, step)
        if not self.pays(further, step):
            return None
        trial.state, trial.until = WAITING, further
        return trial

    def promote_running(self, trial: Trial) -> bool:
        """Let a running trial that has just reached its rung go on, if it would be promoted; writes its state."""
        rungs, maximize = self.plan.rungs, self.directions[0] == "maximize"
        good = rungs is not None and rungs.is_among_best(trial, self.searched, maximize=maximize)
        if good and rungs is not None:
            further = rungs.after(trial.number, trial.until or 0)
            good = self.pays(further, trial.until or 0)
            trial.until = further if good else trial.until
        trial.save_state()
        return good

    def _searching(self) -> Trial | None:
        known = self.searched
        retry = self._failed_to_repeat(known)
        if retry is not None:
            return (self._pays_new() and self._written(retry.params, plan=retry.plan, retry_of=retry.number)) or None
        grid = self.plan.sampler is None
        if sum(t.retry_of is None and not (grid and t.plan is None) for t in known) >= self.n_trials:
            return None
        if self.exhausted or not self._pays_new():
            return None
        while True:
            taken = {trial.plan for trial in known} | self._skipped
            index = next((i for i in range(len(self.plan.planned)) if i not in taken), None)
            if index is None:
                return None if grid else self._new()
            if grid:
                return self._written(self.plan.planned[index], plan=index)
            if (trial := self._asked(self.plan.planned[index], plan=index)) is not None:
                return trial
            self._skipped.add(index)

    def _pays_new(self) -> bool:
        rungs = self.plan.rungs
        return self.pays(None if rungs is None else rungs.after(len(self.study.get_trials(deepcopy=False))))

    def _failed_to_repeat(self, known: Sequence[Trial]) -> Trial | None:
        if not self.plan.retry_failed:
            return None
        repeated = {trial.retry_of for trial in known}
        outside = self.plan.sampler is None  # of a grid that had other values
        return next(
            (
                t for t in known
                if t.state == FAILED and t.number not in repeated and t.retry_of is None
                and not (outside and t.plan is None)
            ),
            None,
        )  # fmt: skip

    def _new(self) -> Trial | None:
        """A configuration of the sampler's choice that was not tried yet; None where it finds no more."""
        for ask in range(MOST_ASKED):
            trial = self._asked(None, at_random=ask >= MOST_ASKED // 2)
            if trial is not None:
                return trial
        self.exhausted = True
        count = sum(t.retry_of is None for t in self.searched)
        self.remarks.append(
            f"no more than {count} of {self.n_trials} trials: the sampler proposes only what was tried; widen the space"
        )
        return None

    def _asked(self, point: dict[str, Any] | None, plan: int | None = None, at_random: bool = False) -> Trial | None:
        """Ask for a trial; None where it would train what another has trained, whose result it takes."""
        try:
            hinted = None if at_random or point else hint(self.plan, self.searched, self.study)
            handle = self._handle(point or hinted, at_random)
            params = self.plan.space.suggest(handle)
        except (ValueError, TypeError, RuntimeError, ImportError) as error:  # whatever a sampler finds wrong as it asks
            raise UserError(f"hydra.sweeper.sampler: {type(error).__name__}: {error}") from error
        units = units_of(self.plan.space.overrides(params), self.plan.seeds)
        identity = self._identity(units[0])
        twin = next((t for t in self.searched if self._identity_of(t) == identity), None)
        if twin is None:
            return self._add(handle, params, units, plan=plan, identity=identity)
        same_as(self.study, handle.number, twin)
        if twin.number not in self._met:
            self._met.add(twin.number)
            self.remarks.append(f"asked again: trial {twin.number} ({twin.what}) was proposed once more")
        return None

    def _identity(self, overrides: list[str]) -> str:
        mark = repr(overrides)
        if mark not in self._identities:
            try:
                self._identities[mark] = self.plan.identity(overrides)
            except Exception:  # what cannot be composed fails as a trial, with its reason
                self._identities[mark] = mark
        return self._identities[mark]

    def _identity_of(self, trial: Trial) -> str:
        return trial.identity or self._identity(self.plan.in_full(trial.units[0]))

    def _written(self, point: dict[str, Any], *, plan: int | None = None, retry_of: int | None = None) -> Trial:
        """A trial at a given point, written down."""
        handle = self._handle(point)
        params = self.plan.space.suggest(handle)
        units = units_of(self.plan.space.overrides(params), self.plan.seeds)
        return self._add(handle, params, units, plan=plan, retry_of=retry_of)

    def _handle(self, point: dict[str, Any] | None, at_random: bool = False) -> optuna.trial.Trial:
        """Optuna's trial at a given point, or of the sampler's choice."""
        number, asked = next_number(self.study, self.searched)
        if self.plan.sampler is not None:
            self.study.sampler = (
                optuna.samplers.RandomSampler(seed=seed_of(0, number)) if at_random else self.plan.sampler(number)
            )
        if asked:
            return handle_of(self.study, number)  # the same point: the next one follows from the ledger alone
        if point is not None and not waiting(self.study):
            self.study.enqueue_trial(point)
        return self.study.ask()

    def _add(self, handle: optuna.trial.Trial, params: dict[str, Any], units: list[list[str]], **more: Any) -> Trial:
        distributions = {key: distribution_to_json(handle.distributions[key]) for key in params}
        trial = self.ledger.add(handle.number, params, self.plan.space.varied(params), units, distributions, **more)
        trial.until = self.first_pause(trial)
        return trial

    def first_pause(self, trial: Trial) -> int | None:
        """The step after which a new trial pauses."""
        return None if self.plan.rungs is None or trial.confirms else self.plan.rungs.after(trial.number)

    def _confirmation(self) -> Trial | None:
        """A rerun of one of the best trials on fresh seeds, once the search is over."""
        if any(not trial.ended and trial.state != PAUSED for trial in self.searched):
            return None
        if self.plan.races_at_once:
            return self._entrant()
        done = {trial.number for trial in self.trials.values() if trial.confirms}
        groups: dict[str, list[Trial]] = {}
        for trial in self.ranked(self.searched):
            groups.setdefault(repr([trial.params.get(key) for key in self.plan.confirm_by]), []).append(trial)
        best = [trial for group in groups.values() for trial in self._distinct(group)[: self.plan.confirm]]
        for text in self.plan.race.references if self.plan.race is not None else ():
            best += [trial for trial in self.ranked(self.searched) if is_named(text, trial.params)][:1]
        new = next((trial for trial in best if trial.number not in done), None)
        seeds = self.plan.confirm_seeds if self.plan.race is None else self.plan.confirm_seeds[:1]
        if new is None or not self.pays(None, runs=len(seeds)):
            return None
        units = units_of(self.plan.space.overrides(new.params), seeds)
        return self.ledger.add(new.number, new.params, new.overrides, units, new.distributions, CONFIRM)

    def _entrant(self) -> Trial | None:
        """A point of a grid, all of which race without a search; None where all do."""
        entrants = [trial for trial in self.trials.values() if trial.confirms]
        known = {self._identity(self.plan.in_full(trial.units[0])) for trial in entrants}
        for point in self.plan.planned:
            units = units_of(self.plan.space.overrides(point), [self.plan.race_seed(0)])
            if self._identity(units[0]) not in known and self.pays(None, runs=1):
                number = max((trial.number for trial in entrants), default=-1) + 1
                distributions = {key: distribution_to_json(self.plan.space.distributions[key]) for key in point}
                return self.ledger.add(number, point, self.plan.space.varied(point), units, distributions, CONFIRM)
        return None

    def _distinct(self, trials: Sequence[Trial]) -> list[Trial]:
        """Without those that on the same seeds would be another one again."""
        found: dict[str, Trial] = {}
        for trial in trials:
            units = units_of(self.plan.space.overrides(trial.params), self.plan.confirm_seeds)
            found.setdefault(self._identity(units[0]), trial)
        return list(found.values())
