"""Scores of a run: which sets, which checkpoints, and the ``result.json`` that is the truth about it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from recyclelora.evaluation.metrics import ConfusionMatrix, as_list, mean_iou
from recyclelora.system.errors import UserError, listed
from recyclelora.system.storage import read_json, write_json

SOURCE_VAL = "source_val"
SOURCE_TITLE, ALONE_TITLE = "source validation", "validation"
"""How ``source_val`` is called: beside targets, and where there are none."""


@dataclass(frozen=True)
class Scores:
    """IoU between 0 and 1 per class (None = absent) of every scored set, after ``step`` steps."""

    step: int
    iou_per_class: dict[str, list[float | None]]
    """of every scored set; all None where a set has no labels"""

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

    def summary(self, source_classes: Collection[int] | None = None) -> dict[str, Any]:
        """``{targets, mean, source_val}`` of result.json.

        Args:
            source_classes: train ids that the sources hold, where these are not all; the same figures over these
                classes alone are added as ``source_classes``, as papers report 16 classes for SYNTHIA.
        """
        source = self.miou(SOURCE_VAL) if SOURCE_VAL in self.iou_per_class else None
        figures: dict[str, Any] = {"targets": self.targets, "mean": self.target_mean, "source_val": source}
        if source_classes is not None:
            figures["source_classes"] = self.restricted(source_classes).summary()
        return figures

    def restricted(self, classes: Collection[int]) -> Scores:
        """The same scores with every other class counted as absent."""
        return Scores(
            self.step,
            {name: [v if index in classes else None for index, v in enumerate(row)]
             for name, row in self.iou_per_class.items()},
        )  # fmt: skip

    def points(self, kind: str = "miou") -> dict[str, float]:
        """``<kind>/<set>`` and ``<kind>/mean`` for the curves."""
        values = {name: self.miou(name) for name in self.iou_per_class} | {"mean": self.target_mean}
        return {f"{kind}/{name}": value for name, value in values.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


class ScoreHistory:
    """The scores of a run's evaluations by step, and which question each answers; kept in ``path`` as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scores: dict[int, Scores] = {}
        self._question: dict[int, str | None] = {}

    def __contains__(self, step: int) -> bool:
        return step in self._scores

    @property
    def scores(self) -> list[Scores]:
        """Of all evaluations, in their order."""
        return [self._scores[step] for step in sorted(self._scores)]

    def add(self, scores: Scores, question: str | None) -> None:
        """Take in one evaluation.

        Args:
            scores: of it
            question: identity of what was asked; None where only a part of it was scored
        """
        self._scores[scores.step], self._question[scores.step] = scores, question

    def answering(self, question: str) -> dict[int, Scores]:
        """The scores that answer a question, by step."""
        return {step: scores for step, scores in self._scores.items() if self._question[step] == question}

    def restore(self, entries: Sequence[Mapping[str, Any]], step: int) -> None:
        """Go back to ``step``: what its checkpoint knew, and what was written after it was saved."""
        self._scores, self._question = {}, {}
        self._take(entries)
        try:
            later = read_json(self._path)
            self._take([entry for entry in later if entry["step"] <= step])
        except (UserError, TypeError, KeyError, ValueError):
            pass  # not there, or damaged: what is missing is scored again

    def _take(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for entry in entries:
            self.add(Scores(int(entry["step"]), dict(entry["iou_per_class"])), entry.get("question"))

    def to_json(self) -> list[dict[str, Any]]:
        """Plain types."""
        return [{**scores.to_json(), "question": self._question[scores.step]} for scores in self.scores]

    def write(self) -> None:
        """Keep it all."""
        write_json(self._path, self.to_json())


def incomplete(broken: Sequence[UserError], done: str) -> UserError:
    """What ends a command that could not read all images: it has done the rest, and says how to go on."""
    head = f"{len(broken)} images cannot be read; {done}, and all others are done:"
    return UserError("\n".join([head, *listed(broken), "mend them; the same command then does the rest"]))


def best_step(history: Sequence[Scores], pointer: str) -> int | None:
    """The step that ``best_source`` or ``best_target`` selects: the earliest with the highest value."""
    name = {"best_source": "source_val", "best_target": "target_mean"}[pointer]
    known = [(value, -scores.step) for scores in history if (value := objective(scores, name)) is not None]
    return -max(known)[1] if known else None


def objective(scores: Scores, name: str) -> float | None:
    """What a sweep maximises."""
    return scores.miou(SOURCE_VAL) if name == "source_val" else scores.target_mean


def result_json(
    selection: dict[str, Scores],
    objective_name: str,
    classes: Sequence[str],
    about: dict[str, Any],
    source_classes: Collection[int] | None = None,
) -> dict[str, Any]:
    """The content of ``result.json``.

    Args:
        selection: ``last``, ``best_source``, ``best_target`` -> full scores
        objective_name: what a sweep maximises
        classes: their names by train id
        about: further fields
        source_classes: train ids that the sources hold, where these are not all
    """
    last = selection["last"]
    return {
        "status": "finished",
        "miou": last.summary(source_classes),
        "selection": {
            name: {**scores.summary(source_classes), "step": scores.step} for name, scores in selection.items()
        },
        "iou_per_class": last.iou_per_class,
        "classes": list(classes),
        "source_classes": None if source_classes is None else [classes[index] for index in sorted(source_classes)],
        "objective": objective(last, objective_name),
        "objective_name": objective_name,
        **about,
    }


def score_table(
    title: str, selection: dict[str, dict[str, Any]], note: str = "", source_classes: Sequence[str] | None = None
) -> Table:
    """mIoU in percent: one row a set, one column a selected checkpoint; then the same over the sources' classes."""
    table = Table(title=title, caption=note or None, title_justify="left", caption_justify="left")
    table.add_column("mIoU, %")
    for name, summary in selection.items():
        table.add_column(f"{name} (step {summary['step']})" if "step" in summary else name, justify="right")
    _add_rows(table, list(selection.values()), "")
    if source_classes is not None:
        table.add_section()
        restricted = [summary["source_classes"] for summary in selection.values()]
        _add_rows(table, restricted, f", {len(source_classes)} source classes")
    return table


def figure_table(selection: dict[str, dict[str, Any]]) -> Table | None:
    """Figures of further metrics: one row a figure and set, one column a selected checkpoint; None without any."""
    found: list[dict[str, dict[str, float]]] = [summary.get("metrics", {}) for summary in selection.values()]
    every = dict.fromkeys((name, key) for figures in found for name, row in figures.items() for key in row)
    table = Table("", *selection, title="further metrics", title_justify="left")
    for name, key in every:
        values = [figures.get(name, {}).get(key) for figures in found]
        table.add_row(f"{key}, {name}", *("" if value is None else f"{value:.4g}" for value in values))
    return table if every else None


def _add_rows(table: Table, summaries: Sequence[dict[str, Any]], remark: str) -> None:
    """One row a target, their mean, and the source validation; without targets the validation alone."""
    if not summaries[0]["targets"]:
        table.add_row(ALONE_TITLE + remark, *(_percent(s["source_val"]) for s in summaries), style="bold")
        return
    for name in summaries[0]["targets"]:
        table.add_row(name + remark, *(_percent(s["targets"][name]) for s in summaries))
    table.add_section()
    table.add_row("mean of targets" + remark, *(_percent(s["mean"]) for s in summaries), style="bold")
    if len(summaries[0]["targets"]) > 1:
        table.add_row("worst target" + remark, *(_worst(s["targets"]) for s in summaries))
    if any(s["source_val"] is not None for s in summaries):
        table.add_row(SOURCE_TITLE + remark, *(_percent(s["source_val"]) for s in summaries))


def _worst(targets: Mapping[str, float | None]) -> str:
    known = [(value, name) for name, value in targets.items() if value is not None]
    return f"{min(known)[1]} {_percent(min(known)[0])}" if known else _percent(None)


def _percent(value: float | None) -> str:
    return "not scored" if value is None else f"{100 * value:.2f}"
