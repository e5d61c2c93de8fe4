"""What a sweep looks for: directions, objectives and constraints, which are figures of ``result.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    return any(map(is_of_targets, objectives or [str(config.get("objective"))]))


def is_miou(objective: str) -> bool:
    """Whether an objective, such as ``source_val`` or ``miou.source_val`` of ``result.json``, is an mIoU."""
    return objective in ("source_val", "target_mean") or "miou." in objective


def is_of_targets(objective: str) -> bool:
    """Whether an objective is a score on the target sets."""
    selected_by_targets = objective.startswith("selection.best_target")
    of_targets = objective == "target_mean" or (is_miou(objective) and not objective.endswith("source_val"))
    return of_targets or selected_by_targets
