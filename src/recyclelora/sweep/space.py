"""What a sweep varies: a grid, or a search space for Optuna; Hydra's syntax, read by Hydra's own parsers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep, ValueType
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from recyclelora.config.conditions import read_condition
from recyclelora.sweep.record import POINT
from recyclelora.system.errors import UserError

FEW = 64
"""As many points of a grid are checked one by one before the first job; of a larger one, every value once."""


@dataclass(frozen=True)
class Space:
    """Distributions by override key, and what never varies."""

    distributions: dict[str, BaseDistribution]
    order: list[str]
    """keys of all overrides as the user gave them"""
    fixed: dict[str, str]
    """whole overrides by key"""
    conditions: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """key -> {other key: values for which the first is asked for}"""
    points: dict[str, list[str]] = field(default_factory=dict)
    """names of whole settings -> their overrides; the parameter ``point`` chooses one"""
    remarks: list[str] = field(default_factory=list)
    """what a person should know of how it was read"""

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of one trial, in the user's order, behind those of its point."""
        known = self.fixed | {key: f"{key}={value}" for key, value in params.items()}
        chosen = self.points.get(str(params.get(POINT)), [])
        return [*chosen, *(known[key] for key in self.order if key in known)]

    def varied(self, params: Mapping[str, Any]) -> list[str]:
        """What one trial does not share with all others, in short."""
        return [f"{key}={value}" for key, value in params.items()]

    def with_points(self, points: Mapping[str, list[str]]) -> Space:
        """The same space, in which every trial also takes one of some named settings."""
        if not points:
            return self
        named: dict[str, BaseDistribution] = {POINT: CategoricalDistribution(list(points))}
        return dataclasses.replace(self, distributions=named | self.distributions, points=dict(points))

    def active(self, key: str, params: Mapping[str, Any]) -> bool:
        """Whether a parameter's conditions hold."""
        return all(str(params.get(other)) in values for other, values in self.conditions.get(key, {}).items())

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Ask Optuna for every parameter whose conditions hold."""
        params: dict[str, Any] = {}
        for key, distribution in self.distributions.items():
            if self.active(key, params):
                params[key] = trial._suggest(key, distribution)
        return params

    def grid(self) -> list[dict[str, Any]]:
        """Every combination, in Hydra's order.

        Raises:
            UserError: a parameter is not discrete.
        """
        choices = [discrete(key, distribution) for key, distribution in self.distributions.items()]
        return [dict(zip(self.distributions, point, strict=True)) for point in itertools.product(*choices)]

    def probes(self) -> Iterator[dict[str, Any]]:
        """Points that together take every choice and both ends of every range."""
        ends = {key: _ends(distribution) for key, distribution in self.distributions.items()}
        if math.prod(len(values) for values in ends.values()) <= FEW:
            points: Iterator[dict[str, Any]] = (
                dict(zip(ends, point, strict=True)) for point in itertools.product(*ends.values())
            )
        else:
            first = {key: values[0] for key, values in ends.items()}
            points = ({**first, **self._met(key), key: value} for key, values in ends.items() for value in values)
        seen = set()
        for point in points:
            kept: dict[str, Any] = {}
            for key, value in point.items():
                if self.active(key, kept):
                    kept[key] = value
            if (mark := repr(kept)) not in seen:
                seen.add(mark)
                yield kept

    def _met(self, key: str) -> dict[str, Any]:
        """Values with which a parameter's conditions hold."""
        met: dict[str, Any] = {}
        for other, values in self.conditions.get(key, {}).items():
            choices = {str(v): v for v in _ends(self.distributions[other])}
            met |= {**self._met(other), other: choices.get(values[0], values[0])}
        return met


def discrete(key: str, distribution: BaseDistribution) -> Sequence[Any]:
    """All values of a discrete distribution.

    Raises:
        UserError: it has infinitely many.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = round((distribution.high - distribution.low) / distribution.step) + 1
        return [distribution.low + i * distribution.step for i in range(count)]
    raise UserError(f"{key}: a grid needs a list of values (a,b,c or choice or range); for intervals take a sampler")


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def grid_space(arguments: Sequence[str], params: Mapping[str, str], loader: Any) -> Space:
    """A plain grid as Hydra's basic sweeper reads it: every value as it was written.

    Raises:
        UserError: an interval, which has no list of values, or a pattern that fits none.
    """
    remarks: list[str] = []

    def choices(override: Override) -> BaseDistribution:
        if not override.is_discrete_sweep():
            raise UserError(f"{override.input_line}: an interval needs a sampler: add hydra/sweeper/sampler=tpe")
        return CategoricalDistribution(_different(override, list(override.sweep_string_iterator()), remarks))

    return dataclasses.replace(_space(arguments, params, loader, choices), remarks=remarks)


def search_space(
    arguments: Sequence[str], params: Mapping[str, str], conditions: Mapping[str, str], loader: Any
) -> Space:
    """A space for Optuna, with the syntax of the stock Optuna sweeper.

    Raises:
        UserError: what a parameter varies over makes no sense, or a condition on something that is not varied.
    """
    remarks: list[str] = []

    def distribution(override: Override) -> BaseDistribution:
        try:
            return _distribution(override, remarks)
        except (ValueError, NotImplementedError, AssertionError, HydraException) as error:
            raise UserError(f"{override.input_line}: {error}") from error

    space = _space(arguments, params, loader, distribution)
    parsed = {key: _condition(key, text, space.distributions, space.fixed) for key, text in conditions.items()}
    ordered = _ordered(space.distributions, {k: c for k, c in parsed.items() if k in space.distributions})
    return dataclasses.replace(space, distributions=ordered, conditions=parsed, remarks=remarks)


def _distribution(override: Override, remarks: list[str]) -> BaseDistribution:
    """What one parameter varies over, as the stock Optuna sweeper reads it, without what it passes over in silence."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    key, value = override.get_key_element(), override.value()
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return CategoricalDistribution(_different(override, list(override.sweep_string_iterator()), remarks))
    if isinstance(value, Sweep) and value.tags:
        if value.tags != {"log"}:
            raise ValueError(
                f"tag({', '.join(sorted(value.tags))}, ...) has no meaning; there is tag(log,interval(a,b))"
            )
        if not override.is_interval_sweep():
            raise ValueError(
                f"only an interval is searched on a logarithmic scale: {key}=tag(log,interval(a,b)), or name the "
                f"values: {key}=choice(1,10,100)"
            )
    found: BaseDistribution = create_optuna_distribution_from_override(override)
    if isinstance(found, CategoricalDistribution):
        return CategoricalDistribution(_different(override, list(found.choices), remarks))
    return found


def _different(override: Override, values: list[Any], remarks: list[str]) -> list[Any]:
    """Values without those that are there more than once, also written in another way, such as 1e-3 and 0.001."""
    if not values:
        raise UserError(f"{override.input_line}: fits none of the options of {override.get_key_element()}")
    found: dict[str, Any] = {}
    repeated = []
    for value in values:
        mark = repr(_plain(value))
        if mark in found:
            repeated.append(str(value))
        found.setdefault(mark, value)
    if repeated:
        remarks.append(f"{override.get_key_element()}: {', '.join(repeated)} are there more than once; taken once")
    return list(found.values())


def _plain(value: Any) -> Any:
    """A value as what it means: equal numbers are equal."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _space(
    arguments: Sequence[str], params: Mapping[str, str], loader: Any, read: Callable[[Override], BaseDistribution]
) -> Space:
    """The sweep file's parameters, then the command line, which wins; what does not vary is kept as it was written."""
    lines = [*(f"{key}={value}" for key, value in params.items()), *arguments]
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(lines)
    distributions: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        distributions.pop(key, None)
        fixed.pop(key, None)
        if override.is_delete() or not override.is_sweep_override():
            fixed[key] = override.input_line or ""
        else:
            distributions[key] = read(override)
    return Space(distributions, list(dict.fromkeys(o.get_key_element() for o in overrides)), fixed)


def nearest_value(distribution: FloatDistribution | IntDistribution, value: float) -> float | int:
    """The value of a parameter that is nearest to a number: on its steps, within its range."""
    low, step = distribution.low, distribution.step
    if step is not None:
        value = low + step * round((value - low) / step)
    value = min(max(value, low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def listed(value: Any) -> list[Any]:
    """One value, or several, as several."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _condition(
    key: str, text: str, distributions: Mapping[str, BaseDistribution], fixed: Mapping[str, str]
) -> dict[str, list[str]]:
    try:
        found = read_condition(text)
    except ValueError as error:
        raise UserError(f"hydra.sweeper.conditions.{key}={text!r}: {error}") from None
    for other in found.keys() - distributions.keys():
        hint = f", which is fixed by {fixed[other]}" if other in fixed else ""
        raise UserError(f"hydra.sweeper.conditions.{key}={text!r}: the sweep does not vary {other}{hint}")
    return found


def _ordered(
    distributions: dict[str, BaseDistribution], conditions: Mapping[str, Mapping[str, Any]]
) -> dict[str, BaseDistribution]:
    """Every parameter behind those that its conditions look at."""
    ordered: dict[str, BaseDistribution] = {}
    waiting = dict(distributions)
    while waiting:
        ready = [key for key in waiting if all(other in ordered for other in conditions.get(key, {}))]
        if not ready:
            raise UserError(f"hydra.sweeper.conditions: {', '.join(waiting)} wait for each other")
        for key in ready:
            ordered[key] = waiting.pop(key)
    return ordered
