"""What a sweep looks for: directions, objectives and constraints, which are figures of ``result.json``."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recyclelora.runs.directory import RESULT
from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import read_object

DIRECTIONS = ("maximize", "minimize")
TUNED = "tuned on targets"
"""What is written wherever a sweep has looked at the targets' labels."""


@dataclass(frozen=True)
class Constraint:
    """A figure of ``result.json`` and its bound."""

    text: str
    key: str
    upper: bool
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``params.backbone_trainable <= 5e6``.

        Raises:
            UserError: it is written otherwise.
        """
        match = re.fullmatch(r"\s*([\w.]+)\s*(<=|>=)\s*([-+\w.]+)\s*", text)
        try:
            assert match is not None
            return cls(text, match[1], match[2] == "<=", float(match[3]))
        except (AssertionError, ValueError):
            raise UserError(
                f"hydra.sweeper.constraints: {text!r} is not like 'params.backbone_trainable <= 5e6'"
            ) from None

    def violation(self, result: Mapping[str, Any]) -> float:
        """By how much a result breaks it; at most 0 where it is kept."""
        value = float(select(result, self.key))
        return value - self.bound if self.upper else self.bound - value


@dataclass(frozen=True)
class Objective:
    """A figure of ``result.json`` by its dotted key; with ``movement~0.02`` how far it is from a number, as the size of
    the logarithm of their ratio: twice and half as much are equally far."""

    key: str
    near: float | None = None

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Read ``miou.source_val`` or ``movement~0.02``.

        Raises:
            UserError: what stands behind ``~`` is no number above zero.
        """
        key, near, number = text.partition("~")
        try:
            found = float(number) if near else None
            assert found is None or 0 < found < math.inf
        except (AssertionError, ValueError):
            raise UserError(
                f"hydra.sweeper.objectives: {text!r} needs a number above zero behind ~, such as 'movement~0.02'"
            ) from None
        return cls(key, found)

    def of(self, result: Mapping[str, Any]) -> Any:
        """Its value in a result.

        Raises:
            UserError: the result does not have the figure, or one of which there is no ratio.
        """
        value = select(result, self.key)
        if self.near is None:
            return value
        if not isinstance(value, int | float) or value <= 0:
            raise UserError(f"{self.key} is {value!r}, which is not near or far from {self.near:g}")
        return abs(math.log(value / self.near))


def means(outcomes: Sequence[Mapping[str, Any]], wanted: int | None) -> list[float]:
    """The means of units' values, which are their trial's.

    Args:
        outcomes: of the units, all complete
        wanted: how many values a trial has; None: as many as there are

    Raises:
        UserError: a unit returned another number of values.
    """
    found = [outcome.get("values") or [] for outcome in outcomes]
    counts = set(map(len, found))
    if wanted is not None and counts != {wanted}:
        raise UserError(f"returned {sorted(counts)[0]} values, not {wanted} as hydra.sweeper.direction says")
    return [statistics.fmean(column) for column in zip(*found, strict=True)]


def violations(
    constraints: Sequence[Constraint], outcomes: Sequence[Mapping[str, Any]], sweep: Path
) -> list[float] | None:
    """By how much a trial breaks each constraint, in the mean over its units; None where there are no constraints.

    Raises:
        UserError: a result does not have a figure that a constraint needs.
    """
    if not constraints:
        return None
    try:
        results = [read_object(sweep / (outcome.get("run_dir") or "") / RESULT) for outcome in outcomes]
        return [statistics.fmean(c.violation(result) for result in results) for c in constraints]
    except UserError as error:
        raise UserError(f"hydra.sweeper.constraints: {error}") from error


def select(result: Any, key: str) -> Any:
    """A figure of ``result.json`` by its dotted key.

    Raises:
        UserError: there is none.
    """
    for part in key.split("."):
        if not isinstance(result, Mapping) or part not in result:
            raise UserError(f"result.json has no {key}")
        result = result[part]
    return result


def tuned_on_targets(objectives: Sequence[str] | None, config: Mapping[str, Any]) -> bool:
    """Whether what is optimised needs the labels of the targets."""
    return any(map(is_of_targets, objectives or [str(config.get("objective"))]))


def is_miou(objective: str) -> bool:
    """Whether an objective, such as ``source_val`` or ``miou.source_val`` of ``result.json``, is an mIoU."""
    return objective in ("source_val", "target_mean") or "miou." in objective


def is_of_targets(objective: str) -> bool:
    """Whether an objective is a score on the target sets."""
    selected_by_targets = objective.startswith("selection.best_target")
    of_targets = objective == "target_mean" or (is_miou(objective) and not objective.endswith("source_val"))
    return of_targets or selected_by_targets


def in_words(values: Iterable[float]) -> str:
    """Values of a trial or of a run, for people."""
    return ", ".join(f"{value:.4f}" for value in values)
