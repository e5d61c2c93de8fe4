"""The race of a sweep in its report: who stands how, and the evidence over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from recyclelora.drawing.style import GREEN, GREY, PALETTE, VERMILLION
from recyclelora.reports import tables
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.figure_style import Drawn, on_paper, subplots
from recyclelora.reports.grouping import wrapped
from recyclelora.reports.table import Cell, Table
from recyclelora.sweep.goals import is_miou
from recyclelora.sweep.race.anytime import confidence_sequence, log_e
from recyclelora.sweep.race.rules import Race, Standing, between, ranked

VERDICTS = {"better": GREEN, "worse": VERMILLION}


def table(c: Comparison) -> Table:
    """Entrants, the best mean first, with intervals that hold for all comparisons and after every seed."""
    assert c.study.race is not None
    race, standings = c.study.race
    scale = 100 if is_miou(race.on) else 1
    by_name = {s.entrant.name: s for s in standings}
    against = list(dict.fromkeys(name for s in standings for name in s.against)) if not race.for_best else []
    columns = ["entrant", "seeds", f"mean {race.on}", *(f"minus {name}" for name in against), "standing"]
    rows = []
    for standing in ranked(race, standings):
        values = standing.entrant.values
        mean = statistics.fmean(values) if values else None
        cells = [Cell(standing.entrant.name, standing.entrant.name), Cell(str(len(values)), len(values))]
        cells.append(Cell(tables.MISSING if mean is None else f"{scale * mean:.2f}", mean))
        cells += [_difference(race, standing, by_name.get(name), len(standings), scale) for name in against]
        rows.append([*cells, Cell(str(standing), standing.verdict)])
    percent = f"{100 * (1 - race.alpha):g}"
    title = (
        f"Race: differences of paired seeds with intervals that hold for all comparisons, after every seed, with "
        f"{percent} % ({c.basis})"
    )
    return Table("differences", title, columns, [False, *[True] * (len(columns) - 2), False], rows)


def difference_table(c: Comparison) -> Table:
    """That of the race, where there is one, else that of numbers of seeds which were fixed beforehand."""
    return tables.differences(c) if c.study.race is None else table(c)


def _difference(race: Race, standing: Standing, other: Standing | None, entrants: int, scale: int) -> Cell:
    """To one reference, with an interval at the level of one of all comparisons."""
    if other is None or other is standing or between(standing, other) is None:
        return Cell(tables.MISSING)
    paired = _paired(standing, other)
    if not paired:
        return Cell(tables.MISSING)
    mean = statistics.fmean(paired)
    interval = confidence_sequence(paired, race.alpha / race.comparisons(entrants))
    around = "" if interval is None else f" ({scale * interval[0]:+z.2f} to {scale * interval[1]:+z.2f})"
    return Cell(f"{scale * mean:+z.2f}{around}", mean)


def _paired(one: Standing, other: Standing) -> list[float]:
    return [a - b for a, b in zip(one.entrant.values, other.entrant.values, strict=False)]


def evidence(c: Comparison) -> Drawn:
    """How the evidence of each comparison grew with its seeds."""
    if c.study.race is None:
        return None
    race, standings = c.study.race
    by_name = {s.entrant.name: s for s in standings}
    names = [
        name
        for s in standings
        for name in s.against
        if min(len(s.entrant.values), len(by_name[name].entrant.values)) > 1
    ]
    if not names:
        return None
    names = list(dict.fromkeys(names))
    names = [race.references[0]] if race.for_best else names[:3]
    figure, panels = subplots(1, len(names), (4.6 * len(names) + 2.2, 3.6), sharey=True, squeeze=False)
    ends: list[list[End]] = [[] for _ in names]
    for panel, name, of_panel in zip(panels[0], names, ends, strict=True):
        for standing in ranked(race, standings):
            for other, decision in standing.against.items():
                paired = _paired(standing, by_name[other])
                if len(paired) < 2 or (other != name and not race.for_best):
                    continue
                curve = np.maximum.accumulate(log_e(np.asarray(paired))) / math.log(10)
                colour = VERDICTS.get(decision.verdict, GREY)
                panel.plot(
                    range(1, len(paired) + 1), curve, color=on_paper(colour), marker="o", markersize=3, linewidth=1.6,
                )  # fmt: skip
                of_panel.append((len(paired), float(curve[-1]), standing.entrant.name, on_paper(colour)))
        level = math.log10(race.comparisons(len(standings)) / race.alpha) if len(standings) > 1 else 0.0
        panel.axhline(level, color=PALETTE[0], linewidth=1, linestyle="--")
        panel.set_title("every two" if race.for_best else f"against {name}", fontsize=10)
        panel.set_xlabel("paired seeds")
        panel.grid()
    for panel, of_panel in zip(panels[0], ends, strict=True):
        _name_ends(panel, of_panel)
    panels[0][0].set_ylabel("evidence, log10 of e")
    caption = (
        "The largest value so far of each e-process. Above the dashed line a comparison is decided whatever the others "
        "are; once others are decided, less is enough (Holm). Green: better, red: worse, grey: undecided."
    )
    return figure, "Evidence over seeds", caption


End = tuple[int, float, str, str]
"""Of a curve: x, y, what it is, colour."""


def _name_ends(panel: Any, ends: Sequence[End]) -> None:
    """Write what curves are beside their ends, inside the panel, each name clear of those below and above it."""
    if not ends:
        return
    ordered = sorted(ends, key=lambda end: end[1])
    texts = [wrapped(name, 24) for _, _, name, _ in ordered]
    bottom, top = panel.get_ylim()
    points = 72 * panel.bbox.height / panel.figure.dpi / (top - bottom)
    heights = [8.5 * (text.count("\n") + 1) for text in texts]
    at, free = [], -math.inf
    for (_, y, _, _), height in zip(ordered, heights, strict=True):
        at.append(max(points * y, free))
        free = at[-1] + height
    free = points * top
    for number in reversed(range(len(at))):  # down again where they have grown over the top
        at[number] = min(at[number], free)
        free = at[number] - heights[number]
    first, last = 0.5, max(x for x, _, _, _ in ends)
    longest = 4.2 * max(len(line) for text in texts for line in text.split("\n")) + 12
    width = 72 * panel.bbox.width / panel.figure.dpi
    panel.set_xlim(first, last + (last - first) * longest / max(width - longest, longest))
    for text, (x, y, _, colour), place in zip(texts, ordered, at, strict=True):
        aside = (6, place - points * y)
        panel.annotate(text, (x, y), xytext=aside, textcoords="offset points", fontsize=7, va="center", color=colour)
