"""Compare the runs of a sweep, or any runs; also ``python -m recyclelora.report``."""

from __future__ import annotations

from recyclelora.cli import launch
from recyclelora.schemas import ReportConfig


def report(config: ReportConfig, trial: int | None = None) -> None:
    """Write ``<sweep>/report``: a page, tables for papers and figures."""
    from recyclelora.progress import Reporter
    from recyclelora.reporting.writing import write_report

    write_report(config, Reporter())


def main() -> None:
    """``python report.py sweep=<sweep dir>`` or ``runs=[<run dir>,<run dir>,...]``."""
    launch("report", report)


if __name__ == "__main__":
    main()
