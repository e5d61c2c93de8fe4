"""``transfer``: a search looks where the best trials of earlier studies were.

Each range of numbers becomes the smallest one that holds the best trials of every earlier study, and a margin: the box
of Perrone et al. 2019 (arXiv 1909.12552), who take the best one of each of many studies. Choices stay.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from recyclelora.sweep.earlier_studies import earlier_study
from recyclelora.sweep.record import read_study
from recyclelora.sweep.space import Space, listed
from recyclelora.system.errors import UserError

KEY = "hydra.sweeper.transfer"
SHARE, LEAST = 0.2, 3
"""Of each study's trials the best fifth, at least so many."""
MARGIN = 0.1
"""Of the whole range, on either side; of its logarithm where that is searched."""

Ranges = dict[str, list[float]]


def narrowed(
    given: Any, space: Space, points: Sequence[Mapping[str, Any]], directions: Sequence[str], sweep: Path
) -> tuple[Space, Ranges, list[str]]:
    """A space with the ranges of the best earlier trials; a sweep that has begun keeps those that it began with.

    Args:
        given: a study or several, each as ``warm_start`` takes them; None: the space stays
        space: as the command has it
        points: that are tried in any case, and stay inside
        directions: of this sweep
        sweep: its folder

    Returns:
        the space; the ranges, for ``study.json``; remarks.

    Raises:
        UserError: a source that is none, looks for something else, or has several objectives.
    """
    if given is None:
        return space, {}, []
    begun = read_study(sweep)
    kept = None if begun is None else begun.get("transfer")
    ranges = None if kept is None else kept["ranges"]
    if ranges is None:
        best = [trial for source in listed(given) for trial in _best(str(source), directions)]
        ranges = {
            key: found
            for key, distribution in space.distributions.items()
            if (found := _range(key, distribution, best, points)) is not None
        }
    distributions = {
        key: _with_range(distribution, ranges[key]) if key in ranges else distribution
        for key, distribution in space.distributions.items()
    }
    remarks = [f"{KEY}: {key} between {low:.4g} and {high:.4g}" for key, (low, high) in ranges.items()]
    if not remarks:
        remarks = [f"{KEY}: the best of earlier trials say nothing about the ranges here, which stay"]
    return dataclasses.replace(space, distributions=distributions), ranges, remarks


def _best(source: str, directions: Sequence[str]) -> list[FrozenTrial]:
    study = earlier_study(source, KEY)
    if len(study.directions) > 1 or len(directions) > 1:
        raise UserError(f"{study.name}: of several objectives none says which trials are the best; take warm_start")
    if study.directions != list(directions):
        raise UserError(f"{study.name}: it was to {study.directions[0]}, this sweep is to {directions[0]}")
    ranked = sorted(study.trials, key=lambda trial: trial.values[0], reverse=study.directions == ["maximize"])
    return ranked[: max(LEAST, math.ceil(SHARE * len(ranked)))]


def _range(
    key: str, distribution: BaseDistribution, best: Sequence[FrozenTrial], points: Sequence[Mapping[str, Any]]
) -> list[float] | None:
    """The narrower range of a parameter; None for choices, and where no earlier trial has a value inside of it."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return None
    low, high, log = distribution.low, distribution.high, distribution.log
    values = [trial.params[key] for trial in best if isinstance(trial.params.get(key), int | float)]
    inside = [value for value in values if low <= value <= high]
    if not inside:
        return None
    inside += [point[key] for point in points if key in point]
    there, back = (math.log, math.exp) if log else (float, float)
    margin = MARGIN * (there(high) - there(low))
    ends = back(there(min(inside)) - margin), back(there(max(inside)) + margin)
    step = distribution.step if not log else None
    if step:  # whole steps from the low end
        first, last = ((end - low) / step for end in ends)
        ends = low + step * math.floor(first + 1e-9), low + step * math.ceil(last - 1e-9)
    elif isinstance(distribution, IntDistribution):
        ends = math.floor(ends[0]), math.ceil(ends[1])
    return [max(low, ends[0]), min(high, ends[1])]


def _with_range(distribution: BaseDistribution, ends: Sequence[float]) -> BaseDistribution:
    found = copy.copy(distribution)
    assert isinstance(found, FloatDistribution | IntDistribution)
    kind = int if isinstance(found, IntDistribution) else float
    found.low, found.high = kind(ends[0]), kind(ends[1])
    return found
