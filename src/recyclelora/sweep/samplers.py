"""Optuna's samplers and pruners by name, from an allow list; a user's ``_target_`` is never called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from recyclelora.sweep.rungs import KINDS
from recyclelora.system.errors import UserError

SAMPLERS: dict[str, str] = {
    "optuna.samplers.TPESampler": "TPESampler",
    "optuna.samplers.RandomSampler": "RandomSampler",
    "optuna.samplers.CmaEsSampler": "CmaEsSampler",
    "optuna.samplers.GPSampler": "GPSampler",
    "optuna.samplers.QMCSampler": "QMCSampler",
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaii_sampler": "NSGAIISampler",
    "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaiii_sampler": "NSGAIIISampler",
}
"""``_target_`` of the stock sweeper's options -> class in ``optuna.samplers``."""

GRID = "optuna.samplers.GridSampler"
CONSTRAINED = ("TPESampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler")
"""Samplers that take constraints."""

LEARN_AT_RUNGS = ("TPESampler", "GPSampler")
"""Samplers that keep nothing in a study, and so can be shown the values at a rung as a study of its own."""
FITS_PAUSES = (*LEARN_AT_RUNGS, "RandomSampler", "QMCSampler", "GridSampler")
"""Samplers that know of trials which pause, or need not learn."""

PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "wilcoxon": "WilcoxonPruner",
    "threshold": "ThresholdPruner",
}

CONSTRAINTS = "constraints"
"""User attribute of a trial: by how much it breaks each constraint; at most 0 means kept."""


def sampler_name(config: Mapping[str, Any]) -> str:
    """The class in ``optuna.samplers`` that a sampler's options stand for.

    Raises:
        UserError: something else than one of Optuna's own.
    """
    target = str(config.get("_target_"))
    if target == GRID:
        return "GridSampler"
    if target not in SAMPLERS:
        raise UserError(
            f"hydra.sweeper.sampler: {target} is not allowed; take hydra/sweeper/sampler=tpe, gp, cmaes ..."
        )
    return SAMPLERS[target]


def make_sampler(config: Mapping[str, Any], number: int, *, parallel: bool, constrained: bool) -> BaseSampler:
    """A sampler for one trial, seeded by the study's seed and the trial's number.

    A driver that starts again then asks for nothing that was asked for before. QMC's sequence is the seed's own.

    Raises:
        UserError: an option that the sampler refuses.
    """
    name = sampler_name(config)
    options = {k: v for k, v in config.items() if k not in ("_target_", "_partial_") and v is not None}
    nested = [key for key, value in options.items() if isinstance(value, Mapping) and "_target_" in value]
    if nested:
        raise UserError(f"hydra.sweeper.sampler.{nested[0]}: objects cannot be named here")
    seed = int(options.pop("seed", 0))
    options["seed"] = seed if name == "QMCSampler" else seed_of(seed, number)
    if name == "TPESampler" and parallel:
        options["constant_liar"] = True  # else parallel trials would be asked for the same point
    if constrained and name in CONSTRAINED:
        options["constraints_func"] = constraints_of
    if "reference_points" in options:
        options["reference_points"] = np.asarray(options["reference_points"], dtype=float)
    return _made("hydra.sweeper.sampler", getattr(optuna.samplers, name), options)  # type: ignore[no-any-return]


def seed_of(seed: int, number: int) -> int:
    """32 bits from the study's seed and a trial's number."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")


def constraints_of(trial: FrozenTrial) -> Sequence[float]:
    """What Optuna asks about a finished trial."""
    return list(trial.user_attrs.get(CONSTRAINTS, ()))


def make_pruner(config: Mapping[str, Any] | None) -> BasePruner | None:
    """Optuna's pruner from its options; None for none, and for those that let trials pause.

    Raises:
        UserError: no such pruner, or an option that it refuses.
    """
    if not config or config.get("kind") in KINDS:
        return None
    options = {k: v for k, v in config.items() if v is not None}
    kind = str(options.pop("kind", None))
    if kind not in PRUNERS:
        raise UserError(f"hydra.sweeper.pruner.kind={kind}: no such pruner; there are {', '.join([*KINDS, *PRUNERS])}")
    return _made("hydra.sweeper.pruner", getattr(optuna.pruners, PRUNERS[kind]), options)  # type: ignore[no-any-return]


def _made(key: str, kind: Callable[..., Any], options: dict[str, Any]) -> Any:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {error}") from error
    except ImportError as error:
        raise UserError(f"{key}: needs a package that is not installed: {error}") from error
