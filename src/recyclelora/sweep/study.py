"""Optuna's study: a view of the ledger that samplers, pruners and the dashboard read.

It is opened by the driver alone, brought up to date from the ledger, and rebuilt from it when it is missing or broken.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from recyclelora.runs.unit import read_reports
from recyclelora.sweep.ledger import COMPLETE, FAILED, PRUNED, Trial
from recyclelora.sweep.samplers import CONSTRAINTS
from recyclelora.sweep.storage import MARK, Place, check_file, refused, shown
from recyclelora.system.errors import UserError, first_line
from recyclelora.system.storage import set_aside

PATIENCE = 10.0
"""Seconds for which a locked file is waited for."""
STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}


def open_study(
    url: str | None, name: str, directions: Sequence[str], trials: Sequence[Trial], earlier: Sequence[FrozenTrial], *,
    widened: bool = False, own: bool = True, mark: str = "",
) -> tuple[optuna.Study, list[str]]:  # fmt: skip
    """Open or create the study and make it agree with the ledger.

    Args:
        url: of :func:`storage_url`
        name: of the study
        directions: ``maximize`` or ``minimize``, one an objective
        trials: the ledger's searched trials
        earlier: finished trials of another study to start from; in front of this study's own
        widened: whether its parameters have other values to choose from than before, and it has to be made again
        own: whether the storage is the sweep's own file; in any other, other people keep their studies
        mark: tells this sweep's study from one of the same name

    Returns:
        the study, and what had to be mended.

    Raises:
        UserError: the storage cannot be reached, or the study in it is another sweep's.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = Place(url, name, tuple(directions), own and url is not None, mark)
    fitting, remarks = _fitting(trials, len(directions))
    found = _usable(place, fitting, earlier, remarks, widened)
    _fill(found, [trial.number for trial in trials], fitting, earlier)
    if found.missing and trials and url is not None:
        remarks.append(f"the study was rebuilt from the ledger: {len(trials)} trials")
    _agree(found.study, fitting, len(earlier))
    if not own and found.study.user_attrs.get(MARK) is None:
        found.study.set_user_attr(MARK, mark)
    return found.study, remarks


def _usable(
    place: Place, trials: Sequence[Trial], earlier: Sequence[FrozenTrial], remarks: list[str], widened: bool
) -> Opened:
    """The study as it is there, or, where that is of no use, an empty one in its place."""
    try:
        found = _opened(place, trials, earlier)
        if widened and found.study.get_trials(deepcopy=False):
            found = Opened(found.study, disagrees=True, missing=True)
    except Locked as error:
        remarks.append(f"{shown(place.url)}: {error}: the study is kept in memory this time; the ledger has everything")
        found = _opened(dataclasses.replace(place, url=None, own=False), trials, earlier)
    except Exception as error:
        if not place.own:
            if isinstance(error, SQLAlchemyError):
                raise refused(place.url, error) from error
            raise
        found = None  # a damaged file fails in any way; nothing is in it that the ledger lacks
    if found is None or (found.disagrees and place.own and _names(found.study) == [place.name]):
        aside = set_aside(place.path, "old" if widened and found is not None else "broken")
        for rest in ("-wal", "-shm"):
            place.path.with_name(place.path.name + rest).unlink(missing_ok=True)
        why = "has other values to choose from" if widened else "is damaged or not what the ledger says"
        remarks.append(f"{place.path.name} {why}; it is kept as {aside.name}")
    elif found.disagrees:
        _refuse_theirs(place, found.study, trials)
        optuna.delete_study(study_name=place.name, storage=found.study._storage)
    else:
        return found
    return Opened(place.study(), disagrees=False, missing=True)


def _names(study: optuna.Study) -> list[str]:
    """All studies of its storage."""
    return [found.study_name for found in study._storage.get_all_studies()]


def _fill(found: Opened, taken: Sequence[int], trials: Sequence[Trial], earlier: Sequence[FrozenTrial]) -> None:
    """Give the study what it lacks; also of trials that do not fit, whose numbers must not be given to new ones."""
    known = {trial.number for trial in found.study.get_trials(deepcopy=False)}
    lacking: list[FrozenTrial] = []
    if found.missing:
        lacking = [*earlier, *_rebuilt(trials, len(earlier), taken)]
    elif not known.issuperset(taken):
        lacking = _rebuilt([], max(known, default=-1) + 1, taken)
    for frozen in lacking:
        found.study.add_trial(frozen)


@dataclass(frozen=True)
class Opened:
    """A study as it was found."""

    study: optuna.Study
    disagrees: bool
    """it tells something else than the ledger"""
    missing: bool
    """it lacks trials of the ledger"""


class Locked(Exception):
    """Another process holds a SQLite file for longer than one waits."""


def _opened(place: Place, trials: Sequence[Trial], earlier: Sequence[FrozenTrial]) -> Opened:
    """Open or create a study and compare it; a file that is locked for a moment is waited for.

    Raises:
        Locked: it stays so.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if place.own:
                check_file(place.path)
            study = place.study()
            known = study.get_trials(deepcopy=False)
        except Exception as error:
            if "database is locked" not in f"{error} {error.__cause__}":
                raise
            if time.monotonic() > until:
                raise Locked("it is locked by another process") from error
            time.sleep(0.5)
        else:
            missing = _disagrees(known, trials, earlier) or (place.own and _has_others(known, trials, earlier))
            return Opened(study, missing and bool(known), missing)


def _refuse_theirs(place: Place, study: optuna.Study, trials: Sequence[Trial]) -> None:
    """Leave a study alone that only has the same name: another sweep's, by its mark, or by all of its trials.

    Raises:
        UserError: it is one.
    """
    theirs = study.user_attrs.get(MARK)
    frozen = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    common = any(frozen.get(trial.number) == trial.params for trial in trials)
    if theirs not in (None, place.mark) or (theirs is None and not common):
        raise UserError(
            f"hydra.sweeper.storage {shown(place.url)}: its study {study.study_name} belongs to another sweep; give "
            "this one another name with hydra.sweeper.study_name="
        )


def _fitting(trials: Sequence[Trial], objectives: int) -> tuple[list[Trial], list[str]]:
    """Trials that Optuna takes, and why it does not take the others: their records were edited."""
    fitting, remarks = [], []
    for trial in trials:
        try:
            if trial.state == COMPLETE and len(trial.values or ()) != objectives:
                raise ValueError(f"values is {trial.values}, not of {objectives} objectives")
            frozen_trial(trial)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            remarks.append(f"{trial.folder}: not shown to the sampler: {first_line(error)}")
        else:
            fitting.append(trial)
    return fitting, remarks


def _disagrees(frozen: Sequence[FrozenTrial], trials: Sequence[Trial], earlier: Sequence[FrozenTrial]) -> bool:
    """Whether the study lacks trials that the ledger has, or tells something else of them."""
    known = {trial.number: trial for trial in frozen}
    known |= {trial.user_attrs[LATE]: trial for trial in frozen if LATE in trial.user_attrs}
    return len(known) < len(earlier) or any(
        trial.number not in known or _differs(known[trial.number], trial) for trial in trials
    )


def _has_others(frozen: Sequence[FrozenTrial], trials: Sequence[Trial], earlier: Sequence[FrozenTrial]) -> bool:
    """Whether the study has results that neither the ledger nor the study it started from knows."""
    known = {*range(len(earlier)), *(trial.number for trial in trials)}
    others = (t for t in frozen if t.number not in known and not {SAME, LATE} & t.user_attrs.keys())
    return any(trial.state == TrialState.COMPLETE for trial in others)


def _differs(frozen: FrozenTrial, trial: Trial) -> bool:
    """Whether Optuna's trial has other parameters, or another result; that it was not told yet is no difference."""
    told = frozen.state.is_finished() and trial.ended
    complete = frozen.state == TrialState.COMPLETE
    return frozen.params != trial.params or (
        told and (complete != (trial.state == COMPLETE) or (complete and frozen.values != trial.values))
    )


def _rebuilt(trials: Sequence[Trial], first: int, taken: Sequence[int]) -> list[FrozenTrial]:
    """Optuna's trials from the ledger's, by number; one that is not among them becomes a failed trial."""
    by_number = {trial.number: trial for trial in trials}
    numbers = range(first, max(taken, default=first - 1) + 1)
    return [frozen_trial(by_number[n]) if n in by_number else create_trial(state=TrialState.FAIL) for n in numbers]


def frozen_trial(trial: Trial) -> FrozenTrial:
    """Optuna's trial for one of the ledger."""
    return create_trial(
        state=STATES.get(trial.state, TrialState.RUNNING),
        values=trial.values if trial.state == COMPLETE else None,
        params=trial.params,
        distributions={key: json_to_distribution(text) for key, text in trial.distributions.items()},
        intermediate_values=dict(read_reports(trial.unit_folder(0))),
        user_attrs=user_attributes(trial),
    )


def user_attributes(trial: Trial) -> dict[str, Any]:
    """What the dashboard and samplers may want to know of a trial besides its values."""
    about: dict[str, Any] = {"ledger": trial.folder.name, "overrides": " ".join(trial.overrides)}
    if trial.reason:
        about["reason"] = trial.reason
    if trial.constraints:
        about[CONSTRAINTS] = trial.constraints
    return about


def _agree(study: optuna.Study, trials: Sequence[Trial], first: int) -> None:
    """Tell the study what ended while it was not told."""
    known = {trial.number: trial for trial in trials}
    for frozen in study.get_trials(deepcopy=False):
        if (trial := known.get(frozen.number)) is not None and trial.ended and frozen.number >= first:
            tell(study, trial)


def tell(study: optuna.Study, trial: Trial) -> None:
    """Tell the study how a trial ended; one that knows was told by a call whose answer was lost."""
    handle = handle_of(study, trial.number)
    if study._storage.get_trial(handle._trial_id).state.is_finished():
        return
    for key, value in user_attributes(trial).items():
        handle.set_user_attr(key, value)
    state = STATES[trial.state]
    if trial.state == PRUNED and len(study.directions) > 1:
        state = TrialState.FAIL  # Optuna has no pruned trials of several objectives
    study.tell(handle, values=trial.values if state == TrialState.COMPLETE else None, state=state)


def report(study: optuna.Study, trial: Trial) -> None:
    """Show the study what the first unit of a running or paused trial has reported so far."""
    handle = handle_of(study, trial.number)
    known = study._storage.get_trial(handle._trial_id).intermediate_values
    for step, value in (pair for pair in read_reports(trial.unit_folder(0)) if pair[0] not in known):
        handle.report(value, step)


SAME = "same_as"
"""User attribute of Optuna's trial: number of the trial whose result it took; the ledger has no such trial."""


def same_as(study: optuna.Study, number: int, twin: Trial) -> None:
    """Give a trial that need not run the result of its twin; one that is not complete has none to give."""
    handle = handle_of(study, number)
    handle.set_user_attr(SAME, twin.number)
    if twin.constraints:
        handle.set_user_attr(CONSTRAINTS, twin.constraints)
    complete = twin.state == COMPLETE
    study.tell(handle, values=twin.values if complete else None, state=STATES[COMPLETE if complete else FAILED])


LATE = "late_result_of"
"""The same, of one that the study has as failed."""


def tell_late(study: optuna.Study, trial: Trial) -> None:
    """Tell the study what a trial has come to that was given up; Optuna takes no second word on a trial of its own."""
    known = study.get_trials(deepcopy=False)
    if not known[trial.number].state.is_finished():
        tell(study, trial)
    elif not any(frozen.user_attrs.get(LATE) == trial.number for frozen in known):
        frozen = frozen_trial(trial)
        frozen.set_user_attr(LATE, trial.number)
        study.add_trial(frozen)


def handle_of(study: optuna.Study, number: int) -> optuna.trial.Trial:
    """Optuna's running trial: to report to, and to ask for parameters or whether it should be pruned."""
    identity = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return optuna.trial.Trial(study, identity)
