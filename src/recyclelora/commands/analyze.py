"""Look at what training did to a run's backbone, or compare those of several runs.

    recyclelora analyze run=outputs/runs/<run>
    recyclelora analyze 'run=[outputs/runs/<one>,outputs/runs/<other>]'

run=            a run directory, or a list of them
checkpoint=     last (default), best_source or best_target
images=         folder or list of images whose features are compared; null: some of the run's own data
features=, subspaces=, figures=       false leaves that part out
data_subspaces= true looks at images of any run, false of none (default: where the run did)
blocks=         numbers of the blocks shown as cosine maps
output=         folder that is written (default: <run>/analysis, of several runs outputs/analysis/<name>)
accelerator=    auto (default), cpu or gpu
"""

from __future__ import annotations

from pathlib import Path

from recyclelora.commands import start
from recyclelora.config.commands import AnalyzeConfig
from recyclelora.system.imports import quick_imports


def analyze(config: AnalyzeConfig, trial: int | None = None) -> None:
    """Write tables and figures to ``<run>/analysis``, or for several runs to ``outputs/analysis/<name>``."""
    with quick_imports():
        from recyclelora.reports.analysis.runs import analyze_run, compare_runs
        from recyclelora.system.next_steps import next_steps, typed_as, with_run
        from recyclelora.system.progress import Reporter
        from recyclelora.training.calibration import looked_at

    runs = [str(run) for run in config.run] if isinstance(config.run, list) else [config.run]
    if len(runs) > 1:
        compare_runs(runs, config, looked_at)
        steps = [("compare their scores", typed_as("report", f"runs=[{','.join(runs)}]"))]
    else:
        analyze_run(runs[0], config, looked_at)
        beside = ("set it beside another run", typed_as("analyze", f"run=[{runs[0]},<run>]"))
        steps = [beside, *with_run(Path(runs[0]), "evaluate")]
    if trial is None:
        Reporter().note(next_steps(*steps))


def main() -> None:
    """``python analyze.py run=<run dir>`` or ``run=[<run dir>,<run dir>,...]``."""
    start("analyze", analyze)
