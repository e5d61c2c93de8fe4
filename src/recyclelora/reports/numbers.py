"""The report's numbers in full precision, as CSV: one row a group, or one a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from recyclelora.reports.comparison import Comparison
from recyclelora.reports.grouping import value_text
from recyclelora.reports.groups import MEAN, SOURCE, ScoredGroup
from recyclelora.reports.raced_groups import standing_of
from recyclelora.reports.records import Run, Trial
from recyclelora.reports.space import axes
from recyclelora.reports.tables import figure_names, knows_movement


def groups_csv(c: Comparison) -> str:
    """One row a group; scores between 0 and 1."""
    names = [*c.targets, MEAN, SOURCE] if not c.alone else [MEAN]
    header = ["group", "kind", "tuned_on_targets", "protocol", "checkpoint", "seeds", "reference"]
    for name in names:
        header += [f"{_slug(c, name)}_mean", f"{_slug(c, name)}_sd"]
    header += ["objective", "backbone_trainable", "decoder", "total", "seconds", "peak_memory_mb"]
    header += ["common_seeds", "difference", "t_low", "t_high", "p", "p_holm", "pooled_p_holm"]
    header += ["bootstrap_low", "bootstrap_high", "bootstrap_over", "verdict"]
    header += ["anytime_p_holm", "anytime_verdict", "more_seeds"]
    header += ["race_seeds", "race"] if c.study.race is not None else []
    moved = knows_movement([*c.groups, *c.search])
    header += ["movement_mean", "movement_sd"] if moved else []
    rows = []
    for group in [*c.groups, *c.search]:
        ranked = any(group is g for g in c.groups)
        kind = "search" if not ranked else "confirm" if c.confirmed else "run"
        row: list[Any] = [group.name, kind, _tuned(c, group), " and ".join(c.protocols), c.selection]
        row += [" ".join(map(str, group.seeds)), group is c.reference]
        for name in names:
            row += group.score(name)
        row += [group.objective, *(group.about("params", key) for key in ("backbone_trainable", "decoder", "total"))]
        row += [group.about("seconds"), group.about("peak_memory_mb")]
        d = c.difference(group)
        if d is None:
            row += [None] * 14
        else:
            main, (low, high) = d.scores.get(MEAN), d.bootstrap or (None, None)
            row += [" ".join(map(str, d.seeds)), *((main.mean, main.low, main.high, main.p) if main else [None] * 4)]
            row += [d.p_holm, d.pooled_p_holm, low, high, d.bootstrap_over, d.verdict]
            row += [d.race.p, d.race.verdict, d.race.more] if d.race else [None] * 3
        standing = standing_of(c.study, group)
        if c.study.race is not None:
            row += [None, None] if standing is None else [len(standing.entrant.values), str(standing)]
        row += group.movement if moved else []
        rows.append(row)
    return _csv(header, rows)


def runs_csv(c: Comparison) -> str:
    """One row a run, finished or not, failed trials without a run included; scores between 0 and 1."""
    names = [*c.targets, MEAN, SOURCE] if not c.alone else [MEAN]
    space = axes(c.study.trials)
    header = ["trial", "kind", "state", "reason", "group", "seed", "tuned_on_targets", "protocol", "checkpoint", "step"]
    header += [_slug(c, name) for name in names] + ["objective", "backbone_trainable", "decoder", "total", "seconds"]
    header += ["peak_memory_mb", "signature", "path", *(axis.key for axis in space)]
    moved, figures = ["movement"] if knows_movement([*c.groups, *c.search]) else [], figure_names(c)
    header += moved
    header += [name.replace(", ", "/") for name in figures]
    by_run = {id(s.run): (s, g) for g in [*c.groups, *c.search] for s in g.runs}
    rows = []
    for index, trial in enumerate(c.study.trials):
        params = [None if axis.values[index] is None else value_text(axis.values[index]) for axis in space]
        runs: list[Run | None] = [*trial.runs] or [None]
        for run in runs:
            known = by_run[id(run)][0].figures if id(run) in by_run else {}
            told = run.result or {} if run is not None else {}
            row = [*_run_row(c, trial, run, by_run, names), *params, *map(told.get, moved)]
            rows.append([*row, *map(known.get, figures)])
    return _csv(header, rows)


def _run_row(c: Comparison, trial: Trial, run: Run | None, by_run: dict[int, Any], names: Sequence[str]) -> list[Any]:
    row: list[Any] = [trial.name, trial.kind, trial.state, trial.reason]
    if run is None:
        return row + [None] * (14 + len(names))
    path = str(run.path.relative_to(c.study.folder)) if run.path.is_relative_to(c.study.folder) else str(run.path)
    if id(run) not in by_run:
        blank = [None, run.seed, c.tuned_on_targets, None, None, run.step]
        return [*row, *blank, *[None] * (len(names) + 7), path]
    scored, group = by_run[id(run)]
    result = scored.result
    row += [group.name, scored.seed, _tuned(c, group), result["protocol"], c.selection]
    row += [result["selection"][c.selection]["step"], *(scored.scores.get(name) for name in names), result["objective"]]
    row += [result["params"][key] for key in ("backbone_trainable", "decoder", "total")]
    return [*row, result["seconds"], result["peak_memory_mb"], result["signature"], path]


def _tuned(c: Comparison, group: ScoredGroup) -> bool:
    return c.study.tuned_on_targets or group.tuned_on_targets


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        cells = [str(v).lower() if isinstance(v, bool) else f"{v:.8g}" if isinstance(v, float) else v for v in row]
        writer.writerow(cells)
    return text.getvalue()


def _slug(c: Comparison, name: str) -> str:
    return {MEAN: "target_mean" if not c.alone else "source_val", SOURCE: "source_val"}.get(name, name)
