"""The report's tables: for the page, as Markdown, as LaTeX with booktabs, and as CSV of full precision."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recyclelora.evaluation.scores import POINTERS
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.grouping import value_text
from recyclelora.reports.groups import MEAN, SOURCE, Group
from recyclelora.reports.records import Run, Trial
from recyclelora.reports.space import axes, pareto_front
from recyclelora.sweep.goals import is_miou

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """What is shown and what it is sorted by."""

    text: str
    value: float | str | None = None


@dataclass(frozen=True)
class Table:
    """A titled table; ``numeric`` columns are aligned to the right."""

    name: str
    title: str
    columns: list[str]
    numeric: list[bool]
    rows: list[list[Cell]]

    def markdown(self, most: int) -> str:
        """A heading and a pipe table of the first ``most`` rows."""
        lines = [f"## {self.title}", "", _pipes(self.columns)]
        lines.append(_pipes("---:" if number else "---" for number in self.numeric))
        lines += [_pipes(cell.text.replace("|", "\\|") for cell in row) for row in self.rows[:most]]
        if len(self.rows) > most:
            lines += ["", f"{len(self.rows) - most} more rows are in the CSV files."]
        return "\n".join(lines) + "\n"

    def latex(self, most: int) -> str:
        """A float with a booktabs table of the first ``most`` rows; the title is its caption."""
        left_out = f" The first {most} of {len(self.rows)} rows." if len(self.rows) > most else ""
        body = [" & ".join(tex(cell.text) for cell in row) + r" \\" for row in self.rows[:most]]
        return "\n".join([
            r"\begin{table}[t]", r"\centering",
            rf"\caption{{{tex(self.title)}.{left_out}}}", rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{{''.join('r' if number else 'l' for number in self.numeric)}}}", r"\toprule",
            " & ".join(tex(column) for column in self.columns) + r" \\", r"\midrule", *body, r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ]) + "\n"  # fmt: skip


def _pipes(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def tex(text: str) -> str:
    """Text as LaTeX."""
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", r"\textbackslash "))
    for sign, command in {"±": r"$\pm$", "–": "--", "²": "$^2$", "Δ": r"$\Delta$", "~": r"\textasciitilde "}.items():
        escaped = escaped.replace(sign, command)
    escaped = re.sub(r"(?<![\w.])-(?=[\d.])", "$-$", escaped)
    return re.sub(r"([<>])", r"$\1$", escaped)


# --- the tables -------------------------------------------------------------------------------------------------------


def scores(c: Comparison, groups: Sequence[Group], kind: str = "") -> Table:
    """mIoU of every target, parameters and cost; one row a group."""
    names = [MEAN, SOURCE, *c.targets]
    columns = ["group", "seeds", *names, "trained parameters", "decoder", "time", "memory"]
    rows = []
    for group in groups:
        cells = [Cell(group.name, group.name), Cell(str(len(group.seeds)), len(group.seeds))]
        cells += [_spread(group, name) for name in names]
        for key in ("backbone_trainable", "decoder"):
            count = group.about("params", key)
            cells.append(Cell(_count(count), count))
        seconds, memory = group.about("seconds"), group.about("peak_memory_mb")
        rows.append([*cells, Cell(_time(seconds), seconds), Cell(_memory(memory), memory)])
    what = kind or ("mIoU in % on fresh seeds" if c.confirmed else "mIoU in %")
    return Table(
        "scores", f"{what}, mean ± standard deviation over seeds ({c.basis})", columns, _numeric(columns), rows
    )


def differences(c: Comparison) -> Table:
    """Paired differences of the mean of targets to the reference."""
    over = "/".join(sorted({d.bootstrap_over for d in c.differences if d.bootstrap_over})) or "images"
    columns = [
        "group", "common seeds", "difference", "95% t-interval", "p (Holm)", "pooled p (Holm)",
        f"95% bootstrap over {over}", "verdict",
    ]  # fmt: skip
    rows = []
    for d in c.differences:
        main = d.scores.get(MEAN)
        interval = (
            MISSING if main is None or main.low is None else f"{100 * main.low:+.2f} to {100 * (main.high or 0):+.2f}"
        )
        boot = MISSING if d.bootstrap is None else f"{100 * d.bootstrap[0]:+.2f} to {100 * d.bootstrap[1]:+.2f}"
        if d.bootstrap and "/" in over:
            boot += f" ({d.bootstrap_over})"
        rows.append([
            Cell(d.group.name, d.group.name), Cell(str(len(d.seeds)), len(d.seeds)),
            Cell(MISSING if main is None else f"{100 * main.mean:+.2f}", None if main is None else main.mean),
            Cell(interval, main.low if main else None), Cell(_p(d.p_holm), d.p_holm),
            Cell(_p(d.pooled_p_holm), d.pooled_p_holm),
            Cell(boot, d.bootstrap and d.bootstrap[0]), Cell(d.verdict, d.verdict),
        ])  # fmt: skip
    reference = c.reference.name if c.reference else MISSING
    title = f"Mean of targets minus that of {reference}, points of mIoU, paired seeds ({c.basis})"
    return Table("differences", title, columns, [False, *[True] * 6, False], rows)


def target_differences(c: Comparison) -> Table:
    """The same of each target and of source validation."""
    names = [*c.targets, SOURCE]
    rows = []
    for d in c.differences:
        cells = [Cell(d.group.name, d.group.name)]
        for name in names:
            found = d.scores.get(name)
            if found is None:
                cells.append(Cell(MISSING))
            else:
                low, high = found.low, found.high
                around = "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
                cells.append(Cell(f"{100 * found.mean:+.2f}{around}", found.mean))
        rows.append(cells)
    reference = c.reference.name if c.reference else MISSING
    title = f"Difference to {reference} by target with 95% t-intervals, not adjusted ({c.basis})"
    return Table("target_differences", title, ["group", *names], [False] + [True] * len(names), rows)


def selections(c: Comparison) -> Table:
    """Mean of targets of each group under every way to choose the checkpoint."""
    rows = []
    for group in c.groups:
        cells = [Cell(group.name, group.name)]
        for pointer in POINTERS:
            chosen = [
                run.result["selection"][pointer]["mean"] for run in group.runs if pointer in run.result["selection"]
            ]
            known = [value for value in chosen if value is not None]
            mean = sum(known) / len(known) if known else None
            cells.append(Cell(MISSING if mean is None else f"{100 * mean:.2f}", mean))
        rows.append(cells)
    about = f"protocol {' and '.join(c.protocols)}" + (", tuned on targets" if c.tuned_on_targets else "")
    title = f"Mean of targets, mIoU in %, by choice of the checkpoint ({about})"
    columns = ["group", "last", "best_source", "best_target (chosen on the targets)"]
    return Table("selections", title, columns, [False, True, True, True], rows)


def trials(c: Comparison) -> Table:
    """Every trial with its state, parameters and objectives."""
    found = c.study.trials
    space = axes(found)
    objectives = c.study.objectives[: len(c.study.directions)]
    columns = ["trial", "kind", "state", "seeds", *(axis.name for axis in space), *objectives, "steps"]
    front = _front(c)
    if front is not None:
        columns.append("Pareto front")
    rows = []
    for index, trial in enumerate(found):
        cells = [Cell(trial.name, trial.number), Cell(trial.kind, trial.kind), Cell(trial.state, trial.state)]
        seeds = ", ".join(str(run.seed) for run in trial.runs)
        cells.append(Cell(seeds or MISSING, seeds))
        cells += [_parameter(axis.values[index]) for axis in space]
        values = trial.values or []
        for place, name in enumerate(objectives):
            value = values[place] if place < len(values) else None
            scale = 100 if is_miou(name) else 1
            cells.append(
                Cell(
                    MISSING if value is None else f"{scale * value:.6g}" if scale == 1 else f"{100 * value:.2f}", value
                )
            )
        done = max((run.step for run in trial.runs), default=0)
        whole = max((run.max_steps or 0 for run in trial.runs), default=0)
        cells.append(Cell(f"{done}/{whole}" if whole else MISSING, done))
        if front is not None:
            cells.append(Cell("yes" if front[index] else "", "yes" if front[index] else "no"))
        rows.append(cells)
    tuned = ", tuned on targets" if c.tuned_on_targets else ""
    numeric = [False] * 4 + [axis.numeric for axis in space] + [True] * (len(objectives) + 1)
    numeric += [False] if front is not None else []
    return Table("trials", f"State, parameters and objective{tuned}", columns, numeric, rows)


def _front(c: Comparison) -> list[bool] | None:
    """Which trials no other beats; None with one objective."""
    import numpy as np

    count = len(c.study.directions)
    done = [
        i for i, t in enumerate(c.study.trials)
        if t.state == "complete" and len(t.values or []) == count and t.feasible
    ]  # fmt: skip
    if count < 2 or not done:
        return None
    front = pareto_front(np.array([c.study.trials[i].values for i in done]), c.study.directions)
    good = {i for i, on in zip(done, front, strict=True) if on}
    return [i in good for i in range(len(c.study.trials))]


# --- CSV --------------------------------------------------------------------------------------------------------------


def groups_csv(c: Comparison) -> str:
    """One row a group; scores between 0 and 1."""
    names = [*c.targets, MEAN, SOURCE]
    header = ["group", "kind", "tuned_on_targets", "protocol", "checkpoint", "seeds", "reference"]
    for name in names:
        header += [f"{_slug(name)}_mean", f"{_slug(name)}_sd"]
    header += ["objective", "backbone_trainable", "decoder", "total", "seconds", "peak_memory_mb"]
    header += ["common_seeds", "difference", "t_low", "t_high", "p", "p_holm", "pooled_p_holm"]
    header += ["bootstrap_low", "bootstrap_high", "bootstrap_over", "verdict"]
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
            row += [None] * 11
        else:
            main, (low, high) = d.scores.get(MEAN), d.bootstrap or (None, None)
            row += [" ".join(map(str, d.seeds)), *((main.mean, main.low, main.high, main.p) if main else [None] * 4)]
            row += [d.p_holm, d.pooled_p_holm, low, high, d.bootstrap_over, d.verdict]
        rows.append(row)
    return _csv(header, rows)


def runs_csv(c: Comparison) -> str:
    """One row a run, finished or not, failed trials without a run included; scores between 0 and 1."""
    names = [*c.targets, MEAN, SOURCE]
    space = axes(c.study.trials)
    header = ["trial", "kind", "state", "reason", "group", "seed", "tuned_on_targets", "protocol", "checkpoint", "step"]
    header += [_slug(name) for name in names] + ["objective", "backbone_trainable", "decoder", "total", "seconds"]
    header += ["peak_memory_mb", "signature", "path", *(axis.key for axis in space)]
    by_run = {id(s.run): (s, g) for g in [*c.groups, *c.search] for s in g.runs}
    rows = []
    for index, trial in enumerate(c.study.trials):
        params = [None if axis.values[index] is None else value_text(axis.values[index]) for axis in space]
        runs: list[Run | None] = [*trial.runs] or [None]
        rows += [[*_run_row(c, trial, run, by_run, names), *params] for run in runs]
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


def _tuned(c: Comparison, group: Group) -> bool:
    return c.study.tuned_on_targets or group.tuned_on_targets


def _csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        cells = [str(v).lower() if isinstance(v, bool) else f"{v:.8g}" if isinstance(v, float) else v for v in row]
        writer.writerow(cells)
    return text.getvalue()


# --- words ------------------------------------------------------------------------------------------------------------


def _slug(name: str) -> str:
    return {MEAN: "target_mean", SOURCE: "source_val"}.get(name, name)


def _numeric(columns: Sequence[str]) -> list[bool]:
    return [False] + [True] * (len(columns) - 1)


def _spread(group: Group, name: str) -> Cell:
    mean, sd = group.score(name)
    if mean is None:
        return Cell(MISSING)
    return Cell(f"{100 * mean:.2f}" + ("" if sd is None else f" ± {100 * sd:.2f}"), mean)


def _parameter(value: Any) -> Cell:
    if value is None:
        return Cell(MISSING)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(value_text(value), value if is_number else value_text(value))


def _count(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k" if value >= 1000 else f"{value:.0f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.1f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )


def _memory(megabytes: float | None) -> str:
    return MISSING if megabytes is None else f"{megabytes / 1024:.1f} GiB"


def _p(value: float | None) -> str:
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
