"""Make a run directory of a released checkpoint, which evaluate, predict and export read.

    recyclelora import checkpoint=soma.pth kind=soma
    recyclelora import checkpoint=rein.pth kind=rein backbone.checkpoint=dinov2.pth data=city2bm

checkpoint=     the file
kind=           rein, soma or recyclelora: whose it is

Everything else describes the run that it becomes, as for `recyclelora train`.
"""

from __future__ import annotations

from recyclelora.commands import start
from recyclelora.config.commands import ImportConfig
from recyclelora.system.imports import quick_imports


def import_checkpoint(config: ImportConfig, trial: int | None = None) -> None:
    """Write a run directory that ``evaluate.py``, ``predict.py`` and ``recyclelora.load`` read; it has no result.json.

    Raises:
        UserError: the file is no checkpoint of this kind; lists every tensor that has no place, and what is missing.
    """
    with quick_imports():
        from recyclelora.exchange.importing.conversion import convert
        from recyclelora.exchange.importing.writing import write_run
        from recyclelora.system.next_steps import next_steps, typed_as, with_run
        from recyclelora.system.progress import Reporter

    reporter = Reporter()
    converted = convert(config)
    for remark in converted.remarks:
        reporter.note(remark)
    run_dir = write_run(converted)
    protocol, data = converted.config.data.protocol, converted.config.data
    reporter.note(f"run directory: {run_dir}")
    scored = typed_as("evaluate", f"run={run_dir}", f"data={data.name}", f"data/protocol={protocol.name}")
    reporter.note(next_steps(("check its scores", scored), *with_run(run_dir, "predict", "export")))


def main() -> None:
    """``python import_checkpoint.py checkpoint=<file.pth> kind=rein|soma|recyclelora``."""
    start("import_checkpoint", import_checkpoint)
