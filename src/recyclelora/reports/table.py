"""A table: its cells, and how it is written as Markdown and as LaTeX with booktabs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


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
