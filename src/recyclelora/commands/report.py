"""Compare the runs of a sweep, or any runs; also ``python -m recyclelora.report``."""

from __future__ import annotations

from recyclelora.config.commands import ReportConfig
from recyclelora.system.stopping import ctrl_c_in_one_line


def report(config: ReportConfig, trial: int | None = None) -> None:
    """Write ``<sweep>/report``: a page, tables for papers and figures."""
    from recyclelora.reports.writing import write_report
    from recyclelora.system.progress import Reporter

    write_report(config, Reporter())


def main() -> None:
    """``python report.py sweep=<sweep dir>`` or ``runs=[<run dir>,<run dir>,...]``."""
    with ctrl_c_in_one_line("report"):
        from recyclelora.commands.launch import launch

        launch("report", report)


if __name__ == "__main__":
    main()
