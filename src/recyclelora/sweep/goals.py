"""What a sweep looks for: directions, objectives and constraints, which are figures of ``result.json``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recyclelora.errors import UserError

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
    if objectives:
        return any(key.startswith(("miou.targets", "miou.mean", "selection.best_target")) for key in objectives)
    return config.get("objective") == "target_mean"


def better(direction: str) -> Callable[[float, float], bool]:
    """Whether a first value is better than a second."""
    return operator.gt if direction == "maximize" else operator.lt
