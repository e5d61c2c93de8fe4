"""Compare the runs of a sweep, or any runs; also ``python -m recyclelora.report``."""

from __future__ import annotations

from recyclelora.engine.stopping import ctrl_c_in_one_line
from recyclelora.schemas import ReportConfig


def report(config: ReportConfig, trial: int | None = None) -> None:
    """Write ``<sweep>/report``: a page, tables for papers and figures."""
    from recyclelora.progress import Reporter
    from recyclelora.reporting.writing import write_report

    write_report(config, Reporter())


def main() -> None:
    """``python report.py sweep=<sweep dir>`` or ``runs=[<run dir>,<run dir>,...]``."""
    with ctrl_c_in_one_line("report"):
        from recyclelora.cli import launch

        launch("report", report)


if __name__ == "__main__":
    main()
