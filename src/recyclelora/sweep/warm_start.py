"""Trials of another study that a sampler knows from the start, as far as they fit into this one's space."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from recyclelora.sweep.ledger import COMPLETE, Ledger
from recyclelora.sweep.space import Space
from recyclelora.sweep.storage import shown
from recyclelora.sweep.study import frozen_trial
from recyclelora.system.errors import UserError
from recyclelora.system.storage import read_json


def read_warm_start(source: str | None, space: Space, directions: Sequence[str]) -> tuple[list[FrozenTrial], list[str]]:
    """The trials to start from, and what did not fit.

    A value beyond a range of numbers is kept; a trial is left out where a parameter of this space is missing or has a
    value that is none of its choices. Parameters that this space does not vary are left out of it.

    Args:
        source: a sweep's folder, ``<storage url>#<study name>``, or nothing
        space: of this sweep
        directions: of this sweep

    Raises:
        UserError: there is no such study, it looks for something else, or nothing of it fits.
    """
    if source is None:
        return [], []
    key = f"hydra.sweeper.warm_start={shown_source(source)}"
    found, theirs = finished_trials(source)
    if theirs != list(directions):
        raise UserError(f"{key}: it was to {' and '.join(theirs)}, this sweep is to {' and '.join(directions)}")
    fitting = [fitted for trial in found if (fitted := _fitted(trial, space)) is not None]
    if not fitting:
        raise UserError(
            f"{key}: none of its {len(found)} trials fits into this space: {', '.join(space.distributions)}"
        )
    unknown = sorted({name for trial in found for name in trial.params} - space.distributions.keys())
    remarks = []
    if len(fitting) < len(found):
        remarks.append(
            f"{key}: {len(found) - len(fitting)} of {len(found)} trials do not fit into this space and are left out"
        )
    if unknown:
        remarks.append(f"{key}: {', '.join(unknown)} is not varied here, whatever it was there")
    return fitting, remarks


def _fitted(trial: FrozenTrial, space: Space) -> FrozenTrial | None:
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for key, distribution in space.distributions.items():
        if not space.active(key, params):
            continue
        if key not in trial.params:
            return None
        kept = _joined(trial.params[key], trial.distributions[key], distribution)
        if kept is None:
            return None
        params[key], distributions[key] = kept
    return create_trial(
        state=TrialState.COMPLETE, values=trial.values, params=params, distributions=distributions,
        user_attrs=trial.user_attrs,
    )  # fmt: skip


def _joined(value: Any, theirs: BaseDistribution, ours: BaseDistribution) -> tuple[Any, BaseDistribution] | None:
    """A value and the distribution under which this study can hold it; None where there is none."""
    if isinstance(ours, CategoricalDistribution):
        same = next((choice for choice in ours.choices if str(choice) == str(value)), None)
        return None if same is None and value is not None else (same, ours)
    assert isinstance(ours, IntDistribution | FloatDistribution)
    with contextlib.suppress(ValueError, TypeError):
        if ours._contains(ours.to_internal_repr(value)):
            return value, ours
        check_distribution_compatibility(ours, theirs)  # a range may have been wider
        return value, theirs
    return None


def finished_trials(source: str) -> tuple[list[FrozenTrial], list[str]]:
    """Complete trials of another study, a sweep's folder or ``<storage url>#<study name>``, and its directions.

    Raises:
        UserError: there is none.
    """
    url, _, name = source.partition("#")
    folder = Path(url)
    key = f"hydra.sweeper.warm_start={shown_source(source)}"
    if (folder / "ledger").is_dir():
        found = [frozen_trial(t) for t in Ledger(folder).trials() if not t.confirms and t.state == COMPLETE]
        directions = [str(direction) for direction in read_json(folder / "study.json")["directions"]]
    else:
        try:
            study = optuna.load_study(study_name=name or None, storage=url)
            found = [t for t in study.get_trials() if t.state == TrialState.COMPLETE]
            directions = [direction.name.lower() for direction in study.directions]
        except (KeyError, ArgumentError, SQLAlchemyError, ValueError, ImportError) as error:
            raise UserError(f"{key}: no sweep and no study: {str(error).splitlines()[0]}") from None
    if not found:
        raise UserError(f"{key}: no trial is complete there")
    return found, directions


def shown_source(source: str) -> str:
    """A source without its password."""
    url, hash_, name = source.partition("#")
    return (shown(url) if "://" in url else url) + hash_ + name
