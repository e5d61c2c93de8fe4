"""The tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        cells = [_word(group.name), _number(len(group.seeds), str)]
        cells += [_mean(group.score(name)) for name in names]
        cells += [_number(group.about("params", key), _count) for key in ("backbone_trainable", "decoder")]
        cells += [_number(group.about("seconds"), _time), _number(group.about("peak_memory_mb"), _memory)]
        rows.append([*cells, _mean(group.movement, ".3g", ".2g", unit=" %")] if moved else cells)
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
        low, high = (None, None) if main is None else (main.low, main.high)
        boot = _between(*(d.bootstrap or (None, None)))
        if d.bootstrap and "/" in over:
            boot += f" ({d.bootstrap_over})"
        rows.append([
            _word(d.group.name), _number(len(d.seeds), str), _number(None if main is None else main.mean, _points),
            Cell(_between(low, high), low), _number(d.p_holm, _p), _number(d.pooled_p_holm, _p),
            Cell(boot, d.bootstrap and d.bootstrap[0]), _word(d.verdict),
            Cell(MISSING) if d.race is None else Cell(str(d.race), d.race.p),
        ])  # fmt: skip
    title = f"{_capital(c)} minus that of {c.reference_name}, points of mIoU, paired seeds ({c.basis})"
    return Table("differences", title, columns, [False, *[True] * 6, False, False], rows)


def target_differences(c: Comparison) -> Table:
    """The same of each target and of source validation."""
    names = [*c.targets, SOURCE] if not c.alone else []
    found = c.differences if names else []
    rows = [[_word(d.group.name), *(_around(d.scores.get(n)) for n in names)] for d in found]
    title = f"Difference to {c.reference_name} by target with 95% t-intervals, not adjusted ({c.basis})"
    return Table("target_differences", title, ["group", *names], [False] + [True] * len(names), rows)


def worst(c: Comparison) -> Table:
    """The lowest target and class of each group, and the paired difference, if any, of what is lowest in each run."""
    kinds = (WORST_CLASS,) if c.alone else (WORST, WORST_CLASS)
    width = 3 if c.differences else 2
    rows = []
    for group in c.groups:
        cells, d = [_word(group.name)], c.difference(group)
        for kind in kinds:
            named = [run.worst[kind][0] for run in group.runs if kind in run.worst]
            if not named:
                cells += [Cell(MISSING)] * width
                continue
            names = sorted(dict.fromkeys(named), key=lambda name: -named.count(name))
            difference = _around(d.further.get(kind)) if d else Cell(MISSING)
            cells += [Cell(", ".join(names), names[0]), _mean(group.score(kind)), difference][:width]
        rows.append(cells)
    headings = {WORST: "mIoU", WORST_CLASS: "IoU"}
    columns = ["group", *(name for kind in kinds for name in [kind, headings[kind], "difference"][:width])]
    compared = f", and minus those of {c.reference_name}" if c.differences else ""
    title = f"{' and '.join(kinds).capitalize()} of each run, IoU in %{compared} ({c.basis})"
    known = any(run.worst for group in c.groups for run in group.runs)
    return Table("worst", title, columns, [False, *[False, True, True][:width] * len(kinds)], rows if known else [])


def figure_differences(c: Comparison) -> Table:
    """Paired differences of the further metrics to the reference."""
    names = figure_names(c)
    rows = [
        [_word(d.group.name), *(_around(d.further.get(name), 1.0) for name in names)]
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
        cells = [_word(group.name)]
        for pointer in pointers:
            chosen = [run.result["selection"][pointer][key] for run in group.runs if pointer in run.result["selection"]]
            known = [value for value in chosen if value is not None]
            mean = sum(known) / len(known) if known else None
            cells.append(_number(mean, _percent))
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
        cells = [_word(group.name)]
        for name in names:
            found = mean_and_sd([run.figures[name] for run in group.runs if name in run.figures])
            cells.append(_mean(found, ".4g", ".2g", scale=1.0))
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
            cells.append(_number(value, _percent if is_miou(name) else "{:.6g}".format))
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


def _word(text: str) -> Cell:
    return Cell(text, text)


def _number(value: float | None, form: Callable[[Any], str]) -> Cell:
    return Cell(MISSING) if value is None else Cell(form(value), value)


def _mean(
    found: tuple[float | None, float | None], form: str = ".2f", side: str = ".2f", scale: float = 100.0, unit: str = ""
) -> Cell:
    """A mean with its standard deviation: in percent, or with ``scale`` 1 in its own unit."""
    mean, sd = found
    around = "" if sd is None else f" ± {scale * sd:{side}}"
    return _number(mean, lambda value: f"{scale * value:{form}}{unit}{around}")


def _around(found: Interval | None, scale: float = 100.0) -> Cell:
    """A difference with its interval: in points of mIoU, or with ``scale`` 1 in its own unit."""
    if found is None:
        return Cell(MISSING)
    main, side = ("+z.2f", "+z.2f") if scale != 1 else ("+z.3g", "+z.2g")
    low, high = found.low, found.high
    around = "" if low is None or high is None else f" ({scale * low:{side}} to {scale * high:{side}})"
    return Cell(f"{scale * found.mean:{main}}{around}", found.mean)


def _parameter(value: Any) -> Cell:
    if value is None:
        return Cell(MISSING)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(value_text(value), value if is_number else value_text(value))


def _between(low: float | None, high: float | None) -> str:
    """An interval in points of mIoU."""
    return MISSING if low is None or high is None else f"{_points(low)} to {_points(high)}"


def _points(difference: float) -> str:
    return f"{100 * difference:+z.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _count(value: float) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k" if value >= 1000 else f"{value:.0f}"


def _time(seconds: float) -> str:
    minutes = f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else minutes


def _memory(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GiB"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
