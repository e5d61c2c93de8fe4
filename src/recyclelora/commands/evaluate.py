"""Score a finished run again, on its own targets or on others.

    recyclelora evaluate run=outputs/runs/<run>
    recyclelora evaluate run=outputs/runs/<run> data=city2acdc checkpoint=best_source

run=            the run directory
data=           one of the data options below (default: the run's own data)
checkpoint=     last (default), best_source or best_target
metrics=        [boundary,calibration,uncertainty,...] or of installed packages (default: those of the run)
corruptions=    [fog,snow,...] or [all]: the targets at severities=[1,2,3,4,5] as well
num_workers=    processes that read images (default 2)
accelerator=    auto (default), cpu or gpu

Writes <run>/evaluations/*.json, a file for each question; what was stopped goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recyclelora.commands import start
from recyclelora.system.imports import quick_imports

if TYPE_CHECKING:
    from recyclelora.config.commands import EvaluateConfig


def evaluate(config: EvaluateConfig, trial: int | None = None) -> float | None:
    """Write ``<run>/evaluations/<data>-<protocol>-<checkpoint>-<identity>.json``; returns the mean of the
    targets, or without any the validation's mIoU.

    Raises:
        UserError: images cannot be read; all others are scored.
        Interrupted: a signal asked to stop; what was counted is kept.
    """
    with quick_imports():
        from recyclelora.evaluation.rescoring import rescore
        from recyclelora.evaluation.scores import figure_table, score_table
        from recyclelora.evaluation.severity import severity_table
        from recyclelora.system.next_steps import next_steps, with_run
        from recyclelora.system.progress import Reporter

    reporter = Reporter()
    found = rescore(config, reporter)
    if "severity" in found.summary:
        reporter.table(severity_table(found.summary["severity"]))
    else:
        columns = {config.checkpoint: found.summary}
        reporter.table(score_table(found.title, columns, source_classes=found.source_classes))
    if figures := figure_table({config.checkpoint: found.summary}):
        reporter.table(figures)
    reporter.note(f"written: {found.path}")
    if trial is None:
        reporter.note(next_steps(*with_run(Path(config.run), "predict", "export")))
    return found.mean


def main() -> None:
    """``python evaluate.py run=<run dir> [data=...]``."""
    start("evaluate", evaluate)
