"""Scores of a run: which sets, which checkpoints, and the ``result.json`` that is the truth about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from recyclelora.metrics import ConfusionMatrix, as_list, mean_iou

SOURCE_VAL = "source_val"
POINTERS = ("last", "best_source", "best_target")


@dataclass(frozen=True)
class Scores:
    """IoU between 0 and 1 per class (None = absent) of every scored set, after ``step`` steps."""

    step: int
    iou_per_class: dict[str, list[float | None]]

    @classmethod
    def of(cls, step: int, matrices: dict[str, ConfusionMatrix]) -> Scores:
        """From one confusion matrix a set."""
        return cls(step, {name: as_list(matrix.iou()) for name, matrix in matrices.items()})

    def miou(self, name: str) -> float | None:
        """Mean over the present classes of one set."""
        return mean_iou(np.array([math.nan if v is None else v for v in self.iou_per_class[name]]))

    @property
    def targets(self) -> dict[str, float | None]:
        """mIoU of every target."""
        return {name: self.miou(name) for name in self.iou_per_class if name != SOURCE_VAL}

    @property
    def target_mean(self) -> float | None:
        """Plain mean of the targets' mIoU, as papers report it."""
        values = [value for value in self.targets.values() if value is not None]
        return sum(values) / len(values) if values else None

    def summary(self) -> dict[str, Any]:
        """``{targets, mean, source_val}`` of result.json."""
        source = self.miou(SOURCE_VAL) if SOURCE_VAL in self.iou_per_class else None
        return {"targets": self.targets, "mean": self.target_mean, "source_val": source}

    def points(self, kind: str = "miou") -> dict[str, float]:
        """``<kind>/<set>`` and ``<kind>/mean`` for the curves."""
        values = {name: self.miou(name) for name in self.iou_per_class} | {"mean": self.target_mean}
        return {f"{kind}/{name}": value for name, value in values.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def best_step(history: Sequence[Scores], pointer: str) -> int | None:
    """The step that ``best_source`` or ``best_target`` selects: the earliest with the highest value."""
    name = {"best_source": "source_val", "best_target": "target_mean"}[pointer]
    known = [(value, -scores.step) for scores in history if (value := objective(scores, name)) is not None]
    return -max(known)[1] if known else None


def objective(scores: Scores, name: str) -> float | None:
    """What a sweep maximises."""
    return scores.miou(SOURCE_VAL) if name == "source_val" else scores.target_mean


def result_json(
    selection: dict[str, Scores], objective_name: str, classes: Sequence[str], about: dict[str, Any]
) -> dict[str, Any]:
    """The content of ``result.json``; ``selection`` maps ``last``, ``best_source``, ``best_target`` to full scores."""
    last = selection["last"]
    return {
        "status": "finished",
        "miou": last.summary(),
        "selection": {name: {**scores.summary(), "step": scores.step} for name, scores in selection.items()},
        "iou_per_class": last.iou_per_class,
        "classes": list(classes),
        "objective": objective(last, objective_name),
        "objective_name": objective_name,
        **about,
    }


def score_table(title: str, selection: dict[str, dict[str, Any]], note: str = "") -> Table:
    """mIoU in percent: one row a set, one column a selected checkpoint."""
    table = Table(title=title, caption=note or None, title_justify="left", caption_justify="left")
    table.add_column("mIoU, %")
    for name, summary in selection.items():
        table.add_column(f"{name} (step {summary['step']})" if "step" in summary else name, justify="right")
    names = list(next(iter(selection.values()))["targets"])
    for name in names:
        table.add_row(name, *(_percent(s["targets"][name]) for s in selection.values()))
    table.add_section()
    table.add_row("mean of targets", *(_percent(s["mean"]) for s in selection.values()), style="bold")
    if any(s["source_val"] is not None for s in selection.values()):
        table.add_row("source validation", *(_percent(s["source_val"]) for s in selection.values()))
    return table


def _percent(value: float | None) -> str:
    return "absent" if value is None else f"{100 * value:.2f}"
