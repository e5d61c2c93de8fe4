"""What a sampler is shown where trials pause: the values at one rung, as finished trials.

Optuna's samplers learn from finished trials, and TPE ranks those that were pruned by their last step. A paused trial
is neither. As in BOHB (Falkner et al., "Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018, section
3.2) the model is fitted to the highest rung that enough trials have reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from recyclelora.sweep.ledger import COMPLETE, RUNNING, WAITING, Trial
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.rungs import Rungs
from recyclelora.sweep.samplers import seed_of
from recyclelora.sweep.space import Space
from recyclelora.sweep.study import LATE, SAME


def hint(plan: Plan, trials: Sequence[Trial], study: optuna.Study) -> dict[str, Any] | None:
    """The parameters that priors, values at rungs or the cost of trials say come next.

    Args:
        plan: with a sampler
        trials: of the search
        study: Optuna's

    Returns:
        None where the sampler learns from the study itself.
    """
    number = next_number(study, trials)[0]
    hinted = None if plan.priors is None else plan.priors.point(number)
    if hinted is not None or plan.sampler is None:
        return hinted
    if plan.rungs is not None and plan.learns_from is not None:
        return propose(plan.sampler(number), plan.space, plan.rungs, trials, study, plan.learns_from)
    if plan.per_second is None:
        return None
    from recyclelora.sweep.per_second import cheapest_improvement

    return cheapest_improvement(
        plan.space, trials,
        maximize=study.directions[0] == StudyDirection.MAXIMIZE, seed=seed_of(0, number), enough=plan.per_second,
        earlier=[(t.params, t.values[0]) for t in of_other_studies(study, trials) if t.values],
    )  # fmt: skip


def propose(
    sampler: BaseSampler, space: Space, rungs: Rungs, trials: Sequence[Trial], study: optuna.Study, enough: int
) -> dict[str, Any]:
    """The parameters that a sampler proposes.

    Args:
        sampler: which keeps nothing in a study: TPE or a Gaussian process
        space: what varies
        rungs: where trials pause
        trials: of the search
        study: Optuna's, with the trials of another study that it began with
        enough: trials at a rung that is to be learnt from
    """
    earlier = of_other_studies(study, trials)
    shown = optuna.create_study(directions=study.directions, sampler=sampler)
    for frozen in seen(rungs, trials, earlier, enough):
        shown.add_trial(frozen)
    return space.suggest(shown.ask())


def of_other_studies(study: optuna.Study, trials: Sequence[Trial]) -> list[FrozenTrial]:
    """What a study began with: finished trials that no driver of this sweep has started."""
    numbers = {trial.number for trial in trials}
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [t for t in complete if t.number not in numbers and not {SAME, LATE} & t.user_attrs.keys()]


def seen(rungs: Rungs, trials: Sequence[Trial], earlier: Sequence[FrozenTrial], enough: int) -> list[FrozenTrial]:
    """Optuna's trials with the values at the highest rung that ``enough`` have reached, and those on the way there.

    Trials of another study, in ``earlier``, are known at the end of their schedules only. Paused below the rung, a
    trial is not shown.
    """
    finished = [(t, t.values[0]) for t in trials if t.state == COMPLETE and t.values]
    known = finished if len(finished) + len(earlier) >= enough else None
    others = list(earlier) if known is not None else []
    for step in reversed(rungs.steps):
        if known is not None:
            break
        at = [(t, value) for t in trials if (value := t.rungs.get(str(step))) is not None]
        known = at if len(at) >= enough or step == rungs.steps[0] else None
    there = {trial.number for trial, _ in known or ()}
    on_the_way = [t for t in trials if t.state in (RUNNING, WAITING) and t.number not in there]
    return [
        *others,
        *(_frozen(trial, TrialState.COMPLETE, value) for trial, value in known or ()),
        *(_frozen(trial, TrialState.RUNNING, None) for trial in on_the_way),
    ]


def _frozen(trial: Trial, state: TrialState, value: float | None) -> FrozenTrial:
    return create_trial(
        state=state, value=value, params=trial.params,
        distributions={key: json_to_distribution(text) for key, text in trial.distributions.items()},
    )  # fmt: skip


def next_number(study: optuna.Study, trials: Sequence[Trial]) -> tuple[int, bool]:
    """Of the trial that comes next, and whether it was asked for: by a driver that could not write it down any more."""
    known = {trial.number for trial in trials}
    asked = study.get_trials(deepcopy=False)
    lost = [t.number for t in asked if t.state == TrialState.RUNNING and t.number not in known]
    return (lost[0], True) if lost else (len(asked), False)


def waiting(study: optuna.Study) -> bool:
    """Whether a point is queued in the study that no driver has taken: one was killed in that moment."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
