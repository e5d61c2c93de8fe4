"""What the calls return: runs, sweeps and comparisons, as tables of pandas and as HTML for notebooks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from recyclelora.evaluation.scores import SOURCE_VAL
from recyclelora.reports import numbers, tables
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.grouping import grouped, varying
from recyclelora.reports.records import Run as Record
from recyclelora.reports.records import Study, read_run, read_sweep
from recyclelora.reports.table import Table
from recyclelora.system.extras import require
from recyclelora.system.imports import quick_imports
from recyclelora.system.progress import shown as place_of

if TYPE_CHECKING:
    import pandas

    from recyclelora.evaluation.load import TrainedModel


@dataclass(frozen=True, repr=False)
class Run:
    """One run directory, finished or not."""

    path: Path

    def __repr__(self) -> str:
        return f"Run({str(place_of(self.path))!r})"

    @cached_property
    def record(self) -> Record:
        """What its files say."""
        return read_run(self.path)

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.path.name

    @property
    def config(self) -> dict[str, Any]:
        """``section.key`` -> value of all that makes it another run, without the seed."""
        return self.record.config

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json``; None where it is not finished."""
        return self.record.result

    @property
    def scores(self) -> dict[str, float | None]:
        """mIoU between 0 and 1 of the last checkpoint: every target, ``target_mean`` and ``source_val``."""
        if self.result is None:
            return {}
        miou = self.result["miou"]
        return {**miou["targets"], "target_mean": miou["mean"], SOURCE_VAL: miou["source_val"]}

    def curves(self) -> pandas.DataFrame:
        """Every point of ``metrics.jsonl``: one row a step, one column a curve, NaN where a curve has no point."""
        frame = _pandas().DataFrame(self.record.points)
        return frame.groupby("step").last() if len(frame) else frame

    def model(self, checkpoint: str = "last", *, accelerator: str = "auto") -> TrainedModel:
        """The trained model: ``run.model().predict("photo.jpg")``."""
        with quick_imports():
            from recyclelora.evaluation.load import load

        return load(self.path, checkpoint, accelerator=accelerator)

    def _repr_html_(self) -> str:
        rows = [[name, "–" if value is None else f"{100 * value:.2f}"] for name, value in self.scores.items()]
        state = f"{self.record.step} steps" + ("" if self.result else ", not finished")
        heading = f"<p><b>{escape(self.name)}</b><br>{state}, {escape(str(place_of(self.path)))}</p>"
        return heading + (_html(["set", "mIoU, %"], rows) if rows else "")


class Runs(Sequence[Run]):
    """Several runs."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> Runs: ...

    def __getitem__(self, index: int | slice) -> Run | Runs:
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"{len(self)} runs, {len(self.finished)} finished"

    @property
    def finished(self) -> Runs:
        """Those that have a result."""
        return Runs([run for run in self if run.result is not None])

    def frame(self, per: str = "run") -> pandas.DataFrame:
        """A tidy table; scores between 0 and 1 of the last checkpoint, NaN where there are none.

        Args:
            per: ``run``: one row a run, with what its configuration has of its own; ``class``: one row a run, set and
                class, with its IoU

        Raises:
            ValueError: another ``per``.
        """
        if per not in ("run", "class"):
            raise ValueError(f"per={per!r}: must be 'run' or 'class'")
        rows = self._by_run() if per == "run" else self._by_class()
        return _pandas().DataFrame(rows)

    @cached_property
    def _groups(self) -> dict[Path, str]:
        found = grouped(self, lambda run: run.config)
        return {run.path: group.name for group in found for run in group.runs}

    def _by_run(self) -> list[dict[str, Any]]:
        keys = varying([run.config for run in self])
        rows = []
        for run in self:
            result, last = run.result or {}, (run.result or {}).get("selection", {}).get("last", {})
            rows.append({
                **self._about(run), "step": run.record.step, **run.scores,
                **{f"{key}/{name}": v for name, row in last.get("metrics", {}).items() for key, v in row.items()},
                "objective": result.get("objective"), "seconds": result.get("seconds"),
                "backbone_trainable": result.get("params", {}).get("backbone_trainable"),
                "signature": result.get("signature"), "path": str(run.path),
                **{key: _plain(run.config.get(key)) for key in keys},
            })  # fmt: skip
        return rows

    def _by_class(self) -> list[dict[str, Any]]:
        return [
            {**self._about(run), "set": name, "class": label, "iou": iou}
            for run in self if run.result is not None
            for name, row in run.result["iou_per_class"].items()
            for label, iou in zip(run.result["classes"], row, strict=True)
        ]  # fmt: skip

    def _about(self, run: Run) -> dict[str, Any]:
        parts = {part: run.config.get(f"{part}.name") for part in ("adapter", "backbone", "decoder", "data")}
        return {"run": run.name, "group": self._groups[run.path], "seed": run.record.seed, **parts,
                "finished": run.result is not None}  # fmt: skip

    def _repr_html_(self) -> str:
        frame = self.frame().dropna(axis=1, how="all")
        scores = [name for name in dict.fromkeys(n for run in self for n in run.scores) if name in frame]
        shown = frame[["group", "seed", "finished", *scores]].copy()
        shown[scores] = 100 * shown[scores].astype(float)
        return f"<p>{self!r}, mIoU in %</p>" + str(shown.to_html(index=False, float_format="{:.2f}".format, na_rep="–"))


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, finished or not."""

    path: Path

    @property
    def study(self) -> Study:
        """What its ledger and runs say by now."""
        return read_sweep(self.path)

    @property
    def runs(self) -> Runs:
        """Of all trials."""
        return Runs([Run(run.path) for run in self.study.runs])

    def trials(self) -> pandas.DataFrame:
        """One row a trial: state, objective values and parameters."""
        study = self.study
        return _pandas().DataFrame([
            {"trial": t.name, "kind": t.kind, "state": t.state, "seeds": len(t.runs),
             **dict(zip(study.objectives, t.values or [], strict=False)), **t.params, "reason": t.reason}
            for t in study.trials
        ])  # fmt: skip

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.path.name)}</b></p>" + str(self.trials().to_html(index=False, na_rep="–"))


@dataclass(frozen=True, repr=False)
class Compared:
    """Groups of seeds, and their paired differences to the reference: what ``report.html`` shows."""

    comparison: Comparison

    def __repr__(self) -> str:
        return f"{len(self.comparison.groups)} groups. {self.winner}"

    @property
    def winner(self) -> str:
        """One sentence that claims no more than the intervals allow."""
        return self.comparison.winner

    def frame(self) -> pandas.DataFrame:
        """``table.csv`` of the report: one row a group, scores between 0 and 1."""
        return _pandas().read_csv(io.StringIO(numbers.groups_csv(self.comparison)))

    def _repr_html_(self) -> str:
        c = self.comparison
        parts = [tables.scores(c, c.groups), *([tables.differences(c)] if c.differences else [])]
        return f"<p><b>{escape(c.winner)}</b></p>" + "".join(_table(table) for table in parts)


def _table(table: Table) -> str:
    """A table of a report."""
    rows = [[cell.text for cell in row] for row in table.rows]
    return f"<p>{escape(table.title)}</p>{_html(table.columns, rows)}"


def _html(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain(value: Any) -> Any:
    """A list as a text: cells can be compared and grouped by."""
    return str(value) if isinstance(value, list | dict) else value


def _pandas() -> Any:
    require("a table", "mlflow", "pandas")
    import pandas

    return pandas
