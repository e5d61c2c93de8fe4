"""Trials of another study that a sampler knows from the start, as far as they fit into this one's space."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from recyclelora.config.conditions import value_of
from recyclelora.sweep.ledger import COMPLETE, Ledger
from recyclelora.sweep.record import StudyRecord
from recyclelora.sweep.space import Space, listed
from recyclelora.sweep.storage import shown
from recyclelora.sweep.study import frozen_trial
from recyclelora.system.errors import UserError, first_line
from recyclelora.system.typed_json import read_record

KEY = "hydra.sweeper.warm_start"


@dataclass(frozen=True)
class Earlier:
    """Another study."""

    name: str
    """as the option names it, without a password"""
    trials: list[FrozenTrial]
    """complete ones"""
    directions: list[str]
    config: DictConfig
    """what its command had; empty where only its database is known"""


def read_warm_start(
    given: Any, space: Space, directions: Sequence[str], config: DictConfig
) -> tuple[list[FrozenTrial], list[str]]:
    """The trials to start from, and what a person should know of how they were fitted into this space.

    A parameter that an earlier study did not vary has the value that its command gave it, or this one's. A number
    beyond a range of this space stays what it is. A trial is left out where a value is none of the choices here.
    Parameters that this space does not vary are left out of a trial.

    Args:
        given: a sweep's folder or ``<storage url>#<study name>``, several of them, or nothing
        space: of this sweep
        directions: of this sweep
        config: composed without what varies

    Raises:
        UserError: there is no such study, it looks for something else, or nothing of it fits.
    """
    fitting: list[FrozenTrial] = []
    remarks: list[str] = []
    for source in [] if given is None else listed(given):
        study = earlier_study(str(source), KEY)
        if study.directions != list(directions):
            there, here = " and ".join(study.directions), " and ".join(directions)
            raise UserError(f"{study.name}: it was to {there}, this sweep is to {here}")
        found, said = _fit(study, space, config)
        fitting += found
        remarks += [f"{study.name}: {text}" for text in said]
    return fitting, remarks


def _fit(study: Earlier, space: Space, config: DictConfig) -> tuple[list[FrozenTrial], list[str]]:
    """The trials of a study as trials of this space, and remarks."""
    varied = {name for trial in study.trials for name in trial.params}
    filled = {key: value_of(study.config, key) for key in space.distributions if key not in varied}
    filled |= {key: value_of(config, key) for key, value in filled.items() if value is None}
    known = {key: value for key, value in filled.items() if value is not None}
    fitting = [fitted for trial in study.trials if (fitted := _fitted(trial, space, known)) is not None]
    if not fitting:
        names = ", ".join(space.distributions)
        raise UserError(f"{study.name}: none of its {len(study.trials)} trials fits into this space: {names}")
    said = []
    if len(fitting) < len(study.trials):
        left = len(study.trials) - len(fitting)
        said.append(f"{left} of {len(study.trials)} trials do not fit into this space and are left out")
    if known:
        said.append(f"{', '.join(f'{key}={value}' for key, value in known.items())} there, though not varied")
    if unknown := sorted(varied - space.distributions.keys()):
        said.append(f"{', '.join(unknown)} is not varied here, whatever it was there")
    outside = sum(any(d != space.distributions[key] for key, d in trial.distributions.items()) for trial in fitting)
    if outside:
        said.append(f"{outside} trials lie outside of the ranges here, and are known where they lie")
    return fitting, said


def _fitted(trial: FrozenTrial, space: Space, filled: Mapping[str, Any]) -> FrozenTrial | None:
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for key, distribution in space.distributions.items():
        if not space.active(key, params):
            continue
        if key not in trial.params and key not in filled:
            return None
        value = trial.params.get(key, filled.get(key))
        kept = _joined(value, trial.distributions.get(key, distribution), distribution)
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
        if theirs == ours:  # a value that was not varied there
            theirs = copy.copy(ours)
            theirs.low, theirs.high = min(value, ours.low), max(value, ours.high)
        check_distribution_compatibility(ours, theirs)  # a range may have been wider
        return value, theirs
    return None


def earlier_study(source: str, option: str) -> Earlier:
    """Another study with complete trials: a sweep's folder or ``<storage url>#<study name>``.

    Args:
        source: as it was given
        option: that names it

    Raises:
        UserError: there is none.
    """
    url, _, name = source.partition("#")
    folder = Path(url)
    shown_name = f"{option}={shown_source(source)}"
    config: Any = {}
    if (folder / "ledger").is_dir():
        found = [frozen_trial(t) for t in Ledger(folder).trials() if not t.confirms and t.state == COMPLETE]
        about = read_record(folder / "study.json", StudyRecord)
        directions, config = [str(direction) for direction in about["directions"]], about.get("config") or {}
    else:
        try:
            study = optuna.load_study(study_name=name or None, storage=url)
            found = [t for t in study.get_trials() if t.state == TrialState.COMPLETE]
            directions = [direction.name.lower() for direction in study.directions]
        except (KeyError, ArgumentError, SQLAlchemyError, ValueError, ImportError) as error:
            raise UserError(f"{shown_name}: no sweep and no study: {first_line(error)}") from None
    if not found:
        raise UserError(f"{shown_name}: no trial is complete there")
    return Earlier(shown_name, found, directions, OmegaConf.create(config))


def shown_source(source: str) -> str:
    """A source without its password."""
    url, hash_, name = source.partition("#")
    return (shown(url) if "://" in url else url) + hash_ + name
