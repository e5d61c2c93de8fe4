"""Compare the runs of a sweep, or any runs: a page, tables for papers and figures.

    recyclelora report sweep=outputs/sweeps/<study>
    recyclelora report 'runs=outputs/runs/*-streets-*' reference=frozen

sweep=          a sweep's folder, finished or not; or
runs=           a run directory, a list of them, or a pattern
reference=      the group with which the others are compared
selection=      the checkpoint that counts: last (default), best_source or best_target
resamples=      draws of the bootstrap (default 1000; 0: none)
max_rows=       rows of table.md and table.tex (default 20)
columns=, order= columns of both, and groups in their order (default: all): columns=[mean of targets,verdict]
labels=         what stands for groups and columns in them: labels=[lora: LoRA,mean of targets: mean]
output=         folder that is written (default: <sweep>/report)
"""

from __future__ import annotations

from recyclelora.commands import start
from recyclelora.config.commands import ReportConfig
from recyclelora.system.imports import quick_imports


def report(config: ReportConfig, trial: int | None = None) -> None:
    """Write ``<sweep>/report``: a page, tables for papers and figures."""
    with quick_imports():
        from recyclelora.reports.writing import write_report
        from recyclelora.system.progress import Reporter

    write_report(config, Reporter())


def main() -> None:
    """``python report.py sweep=<sweep dir>`` or ``runs=[<run dir>,<run dir>,...]``."""
    start("report", report)
