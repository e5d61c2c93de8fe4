"""What training did to a run's backbone, or to those of several runs; also ``python -m recyclelora.analyze``."""

from __future__ import annotations

from recyclelora.config.commands import AnalyzeConfig
from recyclelora.system.stopping import ctrl_c_in_one_line


def analyze(config: AnalyzeConfig, trial: int | None = None) -> None:
    """Write tables and figures to ``<run>/analysis``, or for several runs to ``outputs/analysis/<name>``."""
    from recyclelora.reports.analysis.runs import analyze_run, compare_runs

    if isinstance(config.run, list) and len(config.run) > 1:
        compare_runs([str(run) for run in config.run], config)
    else:
        analyze_run(str(config.run[0] if isinstance(config.run, list) else config.run), config)


def main() -> None:
    """``python analyze.py run=<run dir>`` or ``run=[<run dir>,<run dir>,...]``."""
    with ctrl_c_in_one_line("analyze"):
        from recyclelora.commands.launch import launch

        launch("analyze", analyze)


if __name__ == "__main__":
    main()
