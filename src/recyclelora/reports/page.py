"""The report as one self-contained HTML page that needs no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from recyclelora.drawing.sheets import data_uri, panel_columns
from recyclelora.evaluation.scores import SOURCE_VAL
from recyclelora.reports import race_section, tables
from recyclelora.reports.charts import Chart
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.groups import MEAN, SOURCE, Scored
from recyclelora.reports.html import rendered
from recyclelora.reports.standing import NowStanding
from recyclelora.runs.directory import RunDirectory
from recyclelora.system.next_steps import as_typed_here

SHOWN_GROUPS = 6
"""Groups whose predictions are on the page."""
WIDTH = 300
"""Pixels across one prediction."""
SEARCH_CHARTS = ("history", "pareto", "importances", "rank_split", "parallel", "curve")
"""In the order of the page."""


@dataclass(frozen=True)
class Strip:
    """One column of a set's pictures as a data URI: the images, the ground truth, or what a group says of them."""

    set: str
    group: str
    view: str
    uri: str


def write_page(c: Comparison, charts: Sequence[Chart], resamples: int, now: NowStanding | None = None) -> str:
    """The page as HTML text; with ``now`` that of a sweep that runs, which the browser loads again and again."""
    strips = predictions(c)
    by_name = {chart.name: chart for chart in charts}
    bad = [trial for trial in c.study.trials if trial.state in ("failed", "pruned")]
    return rendered(
        "report.html", c=c, now=now, counts=state_counts(c), charts=by_name, resamples=resamples,
        search_charts=[by_name[name] for name in SEARCH_CHARTS if name in by_name],
        scores=tables.scores(c, c.groups),
        search=tables.scores(c, c.search, f"{c.study.kind}: mIoU in %") if c.search else None,
        differences=race_section.difference_table(c), target_differences=tables.target_differences(c),
        selections=tables.selections(c), worst=tables.worst(c), figures=tables.figures(c),
        figure_differences=tables.figure_differences(c), trials=tables.trials(c), bad=bad, strips=strips,
        sets=list(dict.fromkeys(s.set for s in strips)),
        shown_groups=list(dict.fromkeys(s.group for s in strips if s.group)),
        relative=lambda path: _relative(path, c.study.folder), command=command_line(c),
    )  # fmt: skip


def state_counts(c: Comparison) -> dict[str, int]:
    """State -> number of trials, the finished first."""
    counts = Counter(trial.state for trial in c.study.trials)
    order = ("complete", "running", "waiting", "unfinished", "paused", "pruned", "failed")
    return {state: counts[state] for state in order if counts[state]}


def command_line(c: Comparison) -> str | None:
    """What made the sweep, as one would type it; None for runs that were put beside each other."""
    command: Any = c.study.command if c.study.is_sweep else None
    text = " ".join(map(str, command)) if isinstance(command, list) else command
    return text and as_typed_here(text)


# --- pictures ---------------------------------------------------------------------------------------------------------


def predictions(c: Comparison) -> list[Strip]:
    """The same images under several groups: one run each, of a seed that most of them have."""
    groups = c.groups[:SHOWN_GROUPS]
    if c.reference is not None and c.reference not in groups:
        groups = [*groups[:-1], c.reference]
    if not groups:
        return []
    seed = Counter(seed for group in groups for seed in set(group.seeds)).most_common(1)[0][0]
    strips: list[Strip] = []
    for name in [*c.targets, SOURCE_VAL]:
        title = name if name != SOURCE_VAL else c.title(MEAN) if c.alone else SOURCE
        base: tuple[int, ...] | None = None
        for group in groups:
            run = next((run for run in group.runs if run.seed == seed), group.runs[0])
            columns = _columns(run, name)
            if columns is None or (base is not None and columns["image"].shape != base):
                continue  # other images than the first group's
            if base is None:
                base = columns["image"].shape
                strips += [Strip(title, "", view, _uri(columns[view])) for view in ("image", "ground truth")]
            strips += [Strip(title, group.name, view, _uri(columns[view])) for view in ("prediction", "errors")]
    return strips


def _columns(scored: Scored, name: str) -> dict[str, np.ndarray] | None:
    path = RunDirectory(scored.run.path).figures / f"predictions_{name}.png"
    picture = cv2.imread(str(path)) if path.exists() else None
    return None if picture is None else panel_columns(picture[..., ::-1], len(scored.result["classes"]))


def _uri(column: np.ndarray) -> str:
    return data_uri(column, WIDTH, "webp", 72)


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
