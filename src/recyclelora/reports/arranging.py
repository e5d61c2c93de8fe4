"""Which columns and groups tables and figures for papers show, in which order and under which labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from recyclelora.config.commands import ReportConfig
from recyclelora.reports.comparison import Comparison
from recyclelora.reports.grouping import meant
from recyclelora.reports.table import Cell, Table
from recyclelora.sweep.race.rules import Race, Standing
from recyclelora.system.checks import nearest
from recyclelora.system.errors import UserError


@dataclass(frozen=True)
class Arrangement:
    """Of the figures, and of the tables whose rows are groups.

    Attributes:
        columns: behind the group's name, of the tables that have any of them; None: all.
        order: names of the groups that are shown; None: all, the best first.
        groups: what stands for the names of groups, in captions and on the page, too.
        headings: what stands for the names of columns.
    """

    columns: list[str] | None = None
    order: list[str] | None = None
    groups: dict[str, str] = field(default_factory=dict)
    headings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ReportConfig, scores: Table, *others: Table) -> Arrangement:
        """What the options ask for.

        Args:
            config: the options
            scores: the table of scores with all of its columns and groups
            others: tables with further columns

        Raises:
            UserError: an option names what is not there, or several of it.
        """
        groups = [row[0].text for row in scores.rows]
        columns = list(dict.fromkeys(name for table in (scores, *others) for name in table.columns[1:]))
        texts = [text.partition(": ") for text in config.labels]
        known = [*groups, scores.columns[0], *columns]
        labels = {}
        for name, _, label in texts:
            wanted = name.strip()
            of_one_group = wanted not in known and len(meant(wanted, groups)) == 1  # columns may bear groups' names
            labels[_meant("labels", wanted, groups if of_one_group else known)] = label.strip()
        return cls(
            None if config.columns is None else [_meant("columns", name, columns) for name in config.columns],
            None if config.order is None else [_meant("order", name, groups) for name in config.order],
            {name: labels.get(name, name) for name in groups},
            {name: label for name, label in labels.items() if name not in groups},
        )

    def named(self, c: Comparison) -> Comparison:
        """With the labels of its groups, and of the entrants of its race."""
        named = {id(g): replace(g, name=self._label(g.name)) for g in [*c.groups, *c.search]}
        return replace(
            c, study=replace(c.study, race=self._race(c.study.race)), groups=[named[id(g)] for g in c.groups],
            search=[named[id(g)] for g in c.search], winner=self._said(c.winner),
            reference=None if c.reference is None else named[id(c.reference)],
            differences=[replace(d, group=named[id(d.group)]) for d in c.differences],
        )  # fmt: skip

    def ordered(self, c: Comparison) -> Comparison:
        """With the groups that figures show, in their order; ``c`` has its labels."""
        if self.order is None:
            return c
        groups = [g for name in self.order for g in c.groups if g.name == self._label(name)]
        differences = [d for g in groups for d in c.differences if d.group is g]
        return replace(c, groups=groups, differences=differences)

    def _race(self, race: tuple[Race, list[Standing]] | None) -> tuple[Race, list[Standing]] | None:
        if race is None:
            return None
        return race[0], [
            replace(
                s, entrant=replace(s.entrant, name=self._label(s.entrant.name)),
                against={self._label(name): decision for name, decision in s.against.items()},
                lost_to=None if s.lost_to is None else self._label(s.lost_to),
            )
            for s in race[1]
        ]  # fmt: skip

    def _label(self, name: str) -> str:
        return self.groups.get(name, name)

    @cached_property
    def _names(self) -> re.Pattern[str] | None:
        """Any name of a group, of two that begin alike the longer one; None where all keep theirs."""
        if all(name == label for name, label in self.groups.items()):
            return None
        return re.compile("|".join(map(re.escape, sorted(self.groups, key=len, reverse=True))))

    def _said(self, text: str) -> str:
        """A text with labels for the names in it."""
        return self._names.sub(lambda found: self.groups[found[0]], text) if self._names else text

    def arranged(self, tables: Iterable[Table]) -> list[Table]:
        """The tables as they are to be written."""
        return [self._labelled(self._ordered(self._chosen(table))) for table in tables]

    def _chosen(self, table: Table) -> Table:
        places = [0, *(table.columns.index(name) for name in self.columns or () if name in table.columns)]
        if len(places) == 1:
            return table
        return replace(
            table, columns=[table.columns[i] for i in places], numeric=[table.numeric[i] for i in places],
            rows=[[row[i] for i in places] for row in table.rows],
        )  # fmt: skip

    def _ordered(self, table: Table) -> Table:
        if self.order is None or table.columns[0] not in ("group", "entrant"):
            return table
        rows = [row for name in self.order for row in table.rows if row[0].text == name]
        return replace(table, rows=rows)

    def _labelled(self, table: Table) -> Table:
        columns = [self.headings.get(name, self._said(name)) for name in table.columns]
        rows = [
            [Cell(self._label(row[0].text), row[0].value)]
            + [c if n else Cell(self._said(c.text), c.value) for c, n in zip(row[1:], table.numeric[1:], strict=True)]
            for row in table.rows
        ]
        return replace(table, title=self._said(table.title), columns=columns, rows=rows)


AS_IT_IS = Arrangement()
"""Everything, the best first."""


def _meant(option: str, wanted: str, names: Sequence[str]) -> str:
    """The only one of the names that may be meant."""
    hits = meant(wanted, names)
    if len(hits) != 1:
        what = "is a part of several names" if hits else f"is not there{nearest(wanted, list(names))}"
        raise UserError(f"{option}: {wanted} {what}; there are: {'; '.join(names[:30])}")
    return hits[0]
