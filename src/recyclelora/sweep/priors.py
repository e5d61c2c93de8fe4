"""Priors: where a person expects good values to be, as hints that fade and that the results overrule.

Trial n takes its values from the priors with probability min(1, strength / n), else the sampler proposes: a prior's
weight falls with 1 / n as in piBO (Hvarfner et al. 2022, arXiv 2204.11051), here as a mixture of proposals, which goes
with every sampler and leaves all of the range within reach.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from recyclelora.sweep.samplers import seed_of
from recyclelora.sweep.space import Space, nearest_value
from recyclelora.system.errors import UserError

KEY = "hydra.sweeper.prior"
STRENGTH = 10
"""So many trials are drawn from the priors before others join them."""
FORM = re.compile(r"\s*(normal|lognormal)\(\s*([^,()]+)\s*,\s*([^,()]+)\s*\)\s*")


@dataclass(frozen=True)
class Bell:
    """A normal distribution of a number, or of its logarithm, within the parameter's range."""

    normal: NormalDist
    logarithmic: bool
    distribution: FloatDistribution | IntDistribution

    def draw(self, chance: random.Random) -> float | int:
        """A value, by the inverse of the distribution function between the ends of the range."""
        scale = log if self.logarithmic else float
        below, above = (self.normal.cdf(scale(end)) for end in (self.distribution.low, self.distribution.high))
        share = min(max(below + chance.random() * (above - below), 1e-300), 1 - 1e-16)
        found = self.normal.inv_cdf(share)
        return nearest_value(self.distribution, exp(found) if self.logarithmic else found)


@dataclass(frozen=True)
class Priors:
    """Priors of some parameters.

    Args:
        of: parameter -> its distribution, or the weights of its choices
        seed: the study's
    """

    of: Mapping[str, Bell | Mapping[Any, float]]
    seed: int = 0

    def point(self, number: int) -> dict[str, Any] | None:
        """Values for a trial; None where the sampler is to propose them. The same trial is always told the same."""
        chance = random.Random(seed_of(self.seed, -1 - number))  # noqa: S311  # nosec B311
        if chance.random() * (number + 1) >= STRENGTH:
            return None
        return {key: _drawn(prior, chance) for key, prior in self.of.items()}


def _drawn(prior: Bell | Mapping[Any, float], chance: random.Random) -> Any:
    return prior.draw(chance) if isinstance(prior, Bell) else chance.choices(list(prior), list(prior.values()))[0]


def read_priors(given: Mapping[str, Any], space: Space, seed: int) -> Priors | None:
    """The priors that an option describes, as ``normal(mean, sd)``, ``lognormal(median, sd of the natural logarithm)``
    or weights of choices.

    Args:
        given: parameter -> text, or choice -> weight
        space: what varies
        seed: the study's

    Raises:
        UserError: naming the parameter and what is wrong.
    """
    found: dict[str, Bell | Mapping[Any, float]] = {}
    for key, prior in given.items():
        distribution = space.distributions.get(key)
        if distribution is None:
            raise UserError(f"{KEY}.{key}: the sweep does not vary it")
        if isinstance(distribution, CategoricalDistribution):
            found[key] = _weights(key, prior, distribution)
        else:
            found[key] = _bell(key, str(prior), distribution)
    return Priors(found, seed) if found else None


def _bell(key: str, text: str, distribution: BaseDistribution) -> Bell:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    match = FORM.fullmatch(text)
    try:
        kind, middle, spread = (match[1], float(match[2]), float(match[3])) if match else ("", 0.0, 0.0)
    except ValueError:
        match = None
    if match is None or spread <= 0 or (kind == "lognormal" and middle <= 0):
        raise UserError(f"{KEY}.{key}={text}: write normal(mean,sd) or lognormal(median,sd of the natural logarithm)")
    logarithmic = kind == "lognormal"
    if logarithmic and distribution.low <= 0:
        raise UserError(f"{KEY}.{key}={text}: the range begins at {distribution.low}; a logarithm needs more than 0")
    if not distribution.low <= middle <= distribution.high:
        raise UserError(f"{KEY}.{key}={text}: {middle:g} lies outside of {distribution.low} to {distribution.high}")
    normal = NormalDist(log(middle) if logarithmic else middle, spread)
    return Bell(normal, logarithmic, distribution)


def _weights(key: str, prior: Any, distribution: CategoricalDistribution) -> dict[Any, float]:
    choices = {str(choice): choice for choice in distribution.choices}
    if not isinstance(prior, Mapping) or not prior or not prior.keys() <= choices.keys():
        raise UserError(f"{KEY}.{key}={prior}: write weights of its choices, {', '.join(choices)}: {{a: 3, b: 1}}")
    weights = {choices[str(name)]: float(weight) for name, weight in prior.items()}
    if min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise UserError(f"{KEY}.{key}={dict(prior)}: weights must not be negative, nor all 0")
    return weights
