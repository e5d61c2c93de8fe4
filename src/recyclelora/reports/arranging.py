"""Which columns and groups the tables for papers show, in which order and under which labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from recyclelora.config.commands import ReportConfig
from recyclelora.reports.table import Cell, Table
from recyclelora.system.checks import nearest
from recyclelora.system.errors import UserError


@dataclass(frozen=True)
class Arrangement:
    """Of the tables whose rows are groups.

    Attributes:
        columns: behind the group's name, of the tables that have any of them; None: all.
        order: names of the groups that are shown; None: all, the best first.
        groups: what stands for the names of groups, in captions, too.
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
        labels = {_meant("labels", name.strip(), known): label.strip() for name, _, label in texts}
        return cls(
            None if config.columns is None else [_meant("columns", name, columns) for name in config.columns],
            None if config.order is None else [_meant("order", name, groups) for name in config.order],
            {name: label for name, label in labels.items() if name in groups},
            {name: label for name, label in labels.items() if name not in groups},
        )

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
        if self.order is None or table.columns[0] != "group":
            return table
        rows = [row for name in self.order for row in table.rows if row[0].text == name]
        return replace(table, rows=rows)

    def _labelled(self, table: Table) -> Table:
        columns, title = [self.headings.get(name, name) for name in table.columns], table.title
        for name in sorted(self.groups, key=len, reverse=True):
            title = title.replace(name, self.groups[name])
        rows = [[Cell(self.groups.get(row[0].text, row[0].text), row[0].value), *row[1:]] for row in table.rows]
        return replace(table, title=title, columns=columns, rows=rows)


AS_IT_IS = Arrangement()
"""Everything, the best first."""


def _meant(option: str, wanted: str, names: Sequence[str]) -> str:
    """A name, or the only one that has a part."""
    hits = [name for name in names if name == wanted] or [name for name in names if wanted in name]
    if len(hits) != 1:
        what = "is a part of several names" if hits else f"is not there{nearest(wanted, list(names))}"
        raise UserError(f"{option}: {wanted} {what}; there are: {'; '.join(names[:30])}")
    return hits[0]
