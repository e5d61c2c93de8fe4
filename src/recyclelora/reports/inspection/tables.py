"""The report on a terminal."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from recyclelora.reports.inspection.report import Report


def tables(report: Report) -> list[Table]:
    """Datasets and class frequencies of those that could be opened, and the number of defects of each kind."""
    known = [_datasets(report), _frequencies(report)] if report.datasets else []
    return [*known, _defects(report)]


def _datasets(report: Report) -> Table:
    table = Table("dataset", "role", title=f"data={report.data}", title_justify="left")
    for heading in ("images", "commonest size", "without label", "samples padded"):
        table.add_column(heading, justify="right")
    for d in report.datasets:
        (height, width), count = max(d.sizes.items(), key=lambda pair: pair[1], default=((0, 0), 0))
        size = f"{width}x{height} ({count})"
        ignored = f"{d.ignored:.1%}" if d.labelled else "no masks"
        table.add_row(d.name, d.role, f"{d.num_images}", size, ignored, "" if d.padded is None else f"{d.padded:.0%}")
    return table


def _frequencies(report: Report) -> Table:
    shown = [d for d in report.datasets if d.labelled]
    table = Table("% of labelled pixels", title="class frequencies", title_justify="left")
    for d in shown:
        table.add_column(d.name, justify="right")
    for index, name in enumerate(report.classes):
        values = [f"{100 * d.frequencies[index]:.2f}" if d.pixels[index] else "never" for d in shown]
        table.add_row(name, *values)
    return table


def _defects(report: Report) -> Table:
    table = Table("severity", "defect", "dataset", title="defects", title_justify="left")
    table.add_column("number", justify="right")
    counts = Counter((defect.severity, defect.kind, defect.dataset) for defect in report.defects)
    for key, count in counts.items():
        table.add_row(*key, f"{count}")
    if not counts:
        table.add_row("none", "", "", "0")
    return table
