"""What a sweep searched: one axis a parameter, its values over the trials, and how much each one matters."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recyclelora.reports.grouping import CONTENT, short_keys, telling, value_text, varying
from recyclelora.reports.records import Study, Trial

ENOUGH_FOR_A_FOREST = 10
"""Finished trials below which fANOVA's forest says nothing."""


@dataclass(frozen=True)
class Axis:
    """One parameter over the trials.

    Attributes:
        name: short.
        key: in the configuration.
        values: of each trial; None where it has none.
        log: whether the search space is logarithmic; None where that is not known.
    """

    name: str
    key: str
    values: list[Any]
    log: bool | None = None

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        known = [v for v in self.values if v is not None]
        return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)

    @property
    def logarithmic(self) -> bool:
        """Whether the search space is, or where that is not known the values span more than a factor 20."""
        known = [v for v in self.values if v is not None]
        if not self.numeric or min(known) <= 0:
            return False
        return max(known) >= 20 * min(known) if self.log is None else self.log

    @property
    def levels(self) -> list[Any]:
        """Distinct values: numbers in ascending order, others as they came."""
        known = [v for v in self.values if v is not None]
        return sorted(set(known)) if self.numeric else list(dict.fromkeys(value_text(v) for v in known))

    def positions(self) -> np.ndarray:
        """Each trial's place from 0 to 1, (trials,); NaN without a value."""
        if not self.numeric:
            levels = self.levels
            places = [np.nan if v is None else float(levels.index(value_text(v))) for v in self.values]
        else:
            places = [np.nan if v is None else float(np.log(v) if self.logarithmic else v) for v in self.values]
        found = np.array(places, float)
        low, high = np.nanmin(found), np.nanmax(found)
        scaled: np.ndarray = (found - low) / (high - low) if high > low else found * 0 + 0.5
        return scaled


def searched(study: Study) -> list[Trial]:
    """Trials of the search, without reruns on fresh seeds."""
    return [trial for trial in study.trials if not trial.confirms]


def axes(trials: Sequence[Trial]) -> list[Axis]:
    """Everything but the seed that varies: from the ledger, or where there is none from the configurations."""
    if any(trial.params for trial in trials):
        configs = [{k: v for k, v in trial.params.items() if k != "seed"} for trial in trials]
    else:
        configs = [trial.runs[0].config if trial.runs else {} for trial in trials]
    known = [config for config in configs if config]
    keys = [key for key in varying(known) if key not in CONTENT]
    keys = [key for key in keys if any(telling(key, keys, known))]
    names = short_keys(keys)
    return [Axis(names[key], key, [config.get(key) for config in configs], _is_log(trials, key)) for key in keys]


def _is_log(trials: Sequence[Trial], key: str) -> bool | None:
    """Whether the ledger says that a parameter was searched in its logarithm; None of a choice or an unknown one."""
    texts = (trial.distributions[key] for trial in trials if key in trial.distributions)
    for text in texts:
        about = (json.loads(text) if isinstance(text, str) else text).get("attributes", {})
        return bool(about["log"]) if "log" in about else None
    return None


def importance(trials: Sequence[Trial], found: Sequence[Axis]) -> tuple[str, dict[str, float]]:
    """How much each parameter decides the first objective: the method's name, and shares or strengths from 0 to 1.

    fANOVA of the ledger's search space where there are enough trials, else the correlation of ranks.
    """
    done = [i for i, trial in enumerate(trials) if trial.state == "complete" and trial.values]
    if len(done) < 4 or not found:
        return "", {}
    if len(done) >= ENOUGH_FOR_A_FOREST and all(trials[i].distributions for i in done):
        try:
            shares = _fanova([trials[i] for i in done])
            return "fANOVA", {axis.name: shares[axis.key] for axis in found if axis.key in shares}
        except (ValueError, KeyError, RuntimeError, ImportError):
            pass  # a space that changes between trials has nothing in common to decompose; or there is no Optuna
    from scipy.stats import rankdata

    ranks = rankdata([trials[i].values[0] for i in done])  # type: ignore[index]
    return "correlation of ranks", {axis.name: _strength(axis, done, ranks) for axis in found}


def _fanova(trials: Sequence[Trial]) -> dict[str, float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for trial in trials:
        space = {
            name: optuna.distributions.json_to_distribution(text if isinstance(text, str) else json.dumps(text))
            for name, text in trial.distributions.items()
        }
        params = {name: trial.params[name] for name in space}
        value = trial.values[0]  # type: ignore[index]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _strength(axis: Axis, done: Sequence[int], ranks: np.ndarray) -> float:
    """|Spearman's rho| of a number, the correlation ratio of ranks for a choice."""
    from scipy.stats import spearmanr

    known = np.array([axis.values[i] is not None for i in done])
    values = [axis.values[i] for i in done if axis.values[i] is not None]
    y = ranks[known]
    if len(set(map(value_text, values))) < 2 or y.std() == 0:
        return 0.0
    if axis.numeric:
        return float(abs(spearmanr(values, y).statistic))
    texts = np.array([value_text(v) for v in values])
    between = sum((texts == t).sum() * (y[texts == t].mean() - y.mean()) ** 2 for t in set(texts))
    return float(np.sqrt(between / ((y - y.mean()) ** 2).sum()))


def pareto_front(values: np.ndarray, directions: Sequence[str]) -> np.ndarray:
    """Which trials no other one beats in every objective, bool (trials,).

    Args:
        values: of the objectives, (trials, objectives)
        directions: ``maximize`` or ``minimize`` of each
    """
    signs = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    good = values * signs
    beaten = [bool(((good >= one).all(1) & (good > one).any(1)).any()) for one in good]
    return ~np.array(beaten, bool)
