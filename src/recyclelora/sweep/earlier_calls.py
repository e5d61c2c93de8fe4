"""Trials of earlier calls under the plan of this one: they keep their results, and go on as they were begun."""

from __future__ import annotations

import shlex

from optuna.distributions import distribution_to_json

from recyclelora.sweep.ledger import Ledger
from recyclelora.sweep.planning import Plan, units_of


def fit_grid(ledger: Ledger, plan: Plan) -> list[str]:
    """Find the trials of a grid that has other values now: each keeps its result at the point that it is.

    Args:
        ledger: with the trials of the grid as it was
        plan: the grid as it is

    Returns:
        remarks.
    """
    places = {
        plan.identity(units_of(plan.space.overrides(point), plan.seeds)[0]): index
        for index, point in enumerate(plan.planned)
    }
    outside = 0
    for trial in (t for t in ledger.trials() if not t.confirms and t.retry_of is None):
        trial.identity = trial.identity or plan.identity(plan.in_full(trial.units[0]))
        trial.plan = places.get(trial.identity)
        trial.params = {} if trial.plan is None else plan.planned[trial.plan]
        distributions = plan.space.distributions
        trial.distributions = {key: distribution_to_json(distributions[key]) for key in trial.params}
        outside += trial.plan is None
        trial.save()
    return [f"{outside} earlier trials are not in this grid any more; their results stay"] if outside else []


def go_on_as_then(ledger: Ledger, plan: Plan) -> list[str]:
    """Let unfinished trials of an earlier version train with the younger options that the command brings back for them.

    What a trial runs was written down when it was asked for, without options that nobody knew then.

    Returns:
        remarks.
    """
    found = []
    for trial in (t for t in ledger.trials() if not t.ended):
        units = [plan.in_full(unit) for unit in trial.units]
        if units != trial.units:
            found.append(trial.run_prefix)
            trial.units = units
            trial.save()
    if not found:
        return []
    return [f"{', '.join(found)}: begun by an earlier version, and trained as then: {shlex.join(plan.brought_back)}"]
