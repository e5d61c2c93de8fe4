"""A race in a sweep: its entrants are confirmations in the ledger, which get one unit after the other, one a seed."""

from __future__ import annotations

from recyclelora.runs.unit import AttemptEnd
from recyclelora.sweep.goals import is_miou
from recyclelora.sweep.ledger import COMPLETE, FAILED, WAITING, Trial
from recyclelora.sweep.planning import Plan, units_of
from recyclelora.sweep.race.reading import Known, entrants_of, in_words, read_entrants, value_of, values_of
from recyclelora.sweep.race.rules import OBJECTIVE, Standing, judge
from recyclelora.sweep.search import Search
from recyclelora.system.errors import UserError


class Racing:
    """Says who of a sweep's entrants gets another seed, and who is done.

    Args:
        plan: with a race, or without one, in which case nobody gets any
        search: the trials
    """

    def __init__(self, plan: Plan, search: Search) -> None:
        self.plan, self.search = plan, search
        self._known: Known = {}

    @property
    def entrants(self) -> list[Trial]:
        """In the order of their numbers."""
        return entrants_of(self.search.trials.values()) if self.plan.race is not None else []

    def standings(self) -> list[Standing]:
        """Of the entrants.

        Raises:
            UserError: a result lacks what is compared.
        """
        race, searched = self.plan.race, self.search.searched
        if race is None:
            return []
        return judge(race, read_entrants(race, self.entrants, searched, self.search.ledger.sweep, self._known))

    def lacks(self, trial: Trial) -> str | None:
        """Why a trial's runs cannot be compared, if they cannot."""
        race, sweep = self.plan.race, self.search.ledger.sweep
        if race is not None and trial.confirms:
            try:
                values_of(race, trial, sweep, self._known)
            except UserError as error:
                return str(error)
        return None

    def told(self, outcome: AttemptEnd) -> str:
        """What is compared of a run that has finished, for people; empty where it is missing."""
        race = self.plan.race
        try:
            value = None if race is None else value_of(race, outcome, self.search.ledger.sweep)
        except UserError:
            value = None
        if race is None or value is None:
            return ""
        name = "" if race.on == OBJECTIVE else f"{race.on} "
        return f"{name}{in_words(race, value)}{' %' if is_miou(race.on) else ''}"

    def next(self) -> tuple[Trial, int] | None:
        """Another seed for one of the entrants, written down; None where nobody is to get any now."""
        race, entrants = self.plan.race, self.entrants
        if race is None or self.search.n_trials == 0 or self.search.too_many_failures:  # 0: it was cancelled
            return None
        standings, least = self.standings(), race.least(len(entrants))
        for trial, standing in zip(entrants, standings, strict=True):
            if trial.state == COMPLETE and not standing.over:  # there may be more seeds by now, or other entrants
                _reopen(trial)
        units = [len(trial.units) for trial in entrants]
        waiting = [
            place for place, (trial, standing) in enumerate(zip(entrants, standings, strict=True))
            if not trial.ended and units[place] < race.seeds
            and any(units[place] <= units[other] for other in standing.waits_for)
            and (units[place] < least or units[place] == len(standing.entrant.values))
        ]  # fmt: skip
        if not waiting or not self.search.pays(None, runs=1):
            return None
        place = min(waiting, key=lambda i: (units[i], not standings[i].entrant.reference, i))
        trial, seed = entrants[place], self.plan.race_seed(units[place])
        trial.units += units_of(self.plan.space.overrides(trial.params), [seed])
        trial.save()
        return trial, units[place]

    def done(self) -> list[tuple[Trial, str]]:
        """Entrants whose runs have all finished and that need no more, with how they stand."""
        found = []
        for trial, standing in zip(self.entrants, self.standings(), strict=True):
            if not trial.ended and standing.over and len(standing.entrant.values) == len(trial.units):
                found.append((trial, str(standing)))
        return found

    def failed_again(self) -> list[tuple[Trial, int]]:
        """Units of failed entrants that are to run again, where that is wished."""
        again = []
        for trial in self.entrants if self.plan.retry_failed else ():
            if trial.state == FAILED:
                _reopen(trial)
                outcomes = enumerate(trial.outcomes())
                again += [(trial, unit) for unit, outcome in outcomes if outcome and outcome["status"] != COMPLETE]
        return again


def _reopen(trial: Trial) -> None:
    """Let an entrant go on that had ended."""
    trial.state, trial.values, trial.reason, trial.finished = WAITING, None, None, None
    trial.save_state()
