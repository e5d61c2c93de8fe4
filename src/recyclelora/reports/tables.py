"""The tables of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recyclelora.config.training import POINTERS
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.grouping import value_text
from recyclelora.reports.groups import MEAN, SOURCE, WORST, WORST_CLASS, ScoredGroup
from recyclelora.reports.space import axes, pareto_front
from recyclelora.reports.statistics import Interval, mean_and_sd
from recyclelora.reports.table import Cell, Table
from recyclelora.sweep.goals import is_miou
from recyclelora.sweep.ledger import SEARCH

MISSING = "–"


def scores(c: Comparison, groups: Sequence[ScoredGroup], kind: str = "") -> Table:
    """mIoU of every target, parameters and cost; one row a group."""
    names = c.names
    columns = ["group", "seeds", *map(c.title, names), "trained parameters", "decoder", "time", "memory"]
    moved = knows_movement(groups)
    columns += ["movement"] if moved else []
    rows = []
    for group in groups:
        cells = [Cell(group.name, group.name), Cell(str(len(group.seeds)), len(group.seeds))]
        cells += [_spread(group, name) for name in names]
        for key in ("backbone_trainable", "decoder"):
            count = group.about("params", key)
            cells.append(Cell(_count(count), count))
        seconds, memory = group.about("seconds"), group.about("peak_memory_mb")
        cells += [Cell(_time(seconds), seconds), Cell(_memory(memory), memory)]
        rows.append([*cells, _movement(group)] if moved else cells)
    what = kind or ("mIoU in % on fresh seeds" if c.confirmed else "mIoU in %")
    return Table(
        "scores", f"{what}, mean ± standard deviation over seeds ({c.basis})", columns, _numeric(columns), rows
    )


def differences(c: Comparison) -> Table:
    """Paired differences of the mean of targets to the reference."""
    over = "/".join(sorted({d.bootstrap_over for d in c.differences if d.bootstrap_over})) or "images"
    columns = [
        "group", "common seeds", "difference", "95% t-interval", "p (Holm)", "pooled p (Holm)",
        f"95% bootstrap over {over}", "verdict", "looking after every seed",
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
            Cell(MISSING) if d.race is None else Cell(str(d.race), d.race.p),
        ])  # fmt: skip
    title = f"{_capital(c)} minus that of {c.reference_name}, points of mIoU, paired seeds ({c.basis})"
    return Table("differences", title, columns, [False, *[True] * 6, False, False], rows)


def target_differences(c: Comparison) -> Table:
    """The same of each target and of source validation."""
    names = [*c.targets, SOURCE] if not c.alone else []
    found = c.differences if names else []
    rows = [[Cell(d.group.name, d.group.name), *(_around(d.scores.get(n)) for n in names)] for d in found]
    title = f"Difference to {c.reference_name} by target with 95% t-intervals, not adjusted ({c.basis})"
    return Table("target_differences", title, ["group", *names], [False] + [True] * len(names), rows)


def worst(c: Comparison) -> Table:
    """The lowest target and class of each group, and the paired difference of what is lowest in each run."""
    kinds = (WORST_CLASS,) if c.alone else (WORST, WORST_CLASS)
    rows = []
    for group in c.groups:
        cells, d = [Cell(group.name, group.name)], c.difference(group)
        for kind in kinds:
            named = [run.worst[kind][0] for run in group.runs if kind in run.worst]
            if not named:
                cells += [Cell(MISSING)] * 3
                continue
            names = sorted(dict.fromkeys(named), key=lambda name: -named.count(name))
            cells += [Cell(", ".join(names), names[0]), _spread(group, kind)]
            cells.append(_around(d.further.get(kind)) if d else Cell(MISSING))
        rows.append(cells)
    columns = ["group", WORST, "mIoU", "difference", WORST_CLASS, "IoU", "difference"]
    columns = ["group", *columns[-3 * len(kinds) :]]
    title = (
        f"{' and '.join(kinds).capitalize()} of each run, IoU in %, and minus those of {c.reference_name} ({c.basis})"
    )
    known = any(run.worst for group in c.groups for run in group.runs)
    return Table("worst", title, columns, [False, *[False, True, True] * len(kinds)], rows if known else [])


def figure_differences(c: Comparison) -> Table:
    """Paired differences of the further metrics to the reference."""
    names = figure_names(c)
    rows = [
        [Cell(d.group.name, d.group.name), *(_around(d.further.get(name), 1.0) for name in names)]
        for d in (c.differences if names else ())
    ]
    title = (
        f"Further metrics minus those of {c.reference_name}, paired seeds, 95% t-intervals, not adjusted ({c.basis})"
    )
    columns = ["group", *names]
    return Table("figure_differences", title, columns, _numeric(columns), rows)


def selections(c: Comparison) -> Table:
    """Mean of targets of each group under every way to choose the checkpoint."""
    rows, key = [], "mean" if not c.alone else "source_val"
    pointers = POINTERS if not c.alone else POINTERS[:2]
    for group in c.groups:
        cells = [Cell(group.name, group.name)]
        for pointer in pointers:
            chosen = [run.result["selection"][pointer][key] for run in group.runs if pointer in run.result["selection"]]
            known = [value for value in chosen if value is not None]
            mean = sum(known) / len(known) if known else None
            cells.append(Cell(MISSING if mean is None else f"{100 * mean:.2f}", mean))
        rows.append(cells)
    about = f"protocol {' and '.join(c.protocols)}" + (", tuned on targets" if c.tuned_on_targets else "")
    title = f"{_capital(c)}, mIoU in %, by choice of the checkpoint ({about})"
    columns = ["group", "last", "best_source", "best_target (chosen on the targets)"][: 1 + len(pointers)]
    return Table("selections", title, columns, _numeric(columns), rows)


def figures(c: Comparison) -> Table:
    """Further metrics of each group; no rows without any."""
    names = figure_names(c)
    rows = []
    for group in c.groups if names else ():
        cells = [Cell(group.name, group.name)]
        for name in names:
            mean, sd = mean_and_sd([run.figures[name] for run in group.runs if name in run.figures])
            around = "" if sd is None else f" ± {sd:.2g}"
            cells.append(Cell(MISSING if mean is None else f"{mean:.4g}{around}", mean))
        rows.append(cells)
    columns = ["group", *names]
    title = f"Further metrics, mean ± standard deviation over runs ({c.basis})"
    return Table("figures", title, columns, _numeric(columns), rows)


def knows_movement(groups: Sequence[ScoredGroup]) -> bool:
    """Whether any run tells how far its weights moved; those of earlier versions do not."""
    return any(group.movement[0] is not None for group in groups)


def figure_names(c: Comparison) -> list[str]:
    """What further metrics any run has."""
    return list(dict.fromkeys(name for g in [*c.groups, *c.search] for run in g.runs for name in run.figures))


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
        kind = c.study.kind.lower() if trial.kind == SEARCH else trial.kind
        cells = [Cell(trial.name, trial.number), Cell(kind, kind), Cell(trial.state, trial.state)]
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


# --- words ------------------------------------------------------------------------------------------------------------


def _capital(c: Comparison) -> str:
    """What decides, at the start of a title."""
    return c.title(MEAN).capitalize()


def _numeric(columns: Sequence[str]) -> list[bool]:
    return [False] + [True] * (len(columns) - 1)


def _spread(group: ScoredGroup, name: str) -> Cell:
    mean, sd = group.score(name)
    if mean is None:
        return Cell(MISSING)
    return Cell(f"{100 * mean:.2f}" + ("" if sd is None else f" ± {100 * sd:.2f}"), mean)


def _movement(group: ScoredGroup) -> Cell:
    """Mean of |dW| / |W0| in percent."""
    mean, sd = group.movement
    if mean is None:
        return Cell(MISSING)
    return Cell(f"{100 * mean:.3g} %" + ("" if sd is None else f" ± {100 * sd:.2g}"), mean)


def _around(found: Interval | None, scale: float = 100.0) -> Cell:
    """A difference with its interval: in points of mIoU, or with ``scale`` 1 in its own unit."""
    if found is None:
        return Cell(MISSING)
    main, side = ("+.2f", "+.1f") if scale != 1 else ("+.3g", "+.2g")
    low, high = found.low, found.high
    around = "" if low is None or high is None else f" ({scale * low:{side}} to {scale * high:{side}})"
    return Cell(f"{scale * found.mean:{main}}{around}", found.mean)


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
