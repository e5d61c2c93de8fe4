"""Train a finished run again from its directory, and compare bit for bit.

    recyclelora repeat run=outputs/runs/<run>

run=            the run directory
output_dir=     the repetition lies here (default: outputs/repeats)
data_root=, folder_root=, cache=      where these are now, if not where they were
anyway=         true: also with other code, packages, data or weights than then
"""

from __future__ import annotations

from pathlib import Path

from recyclelora.commands import start
from recyclelora.config.commands import RepeatConfig
from recyclelora.config.compose import load_config
from recyclelora.runs.directory import CONFIG, RECORD, is_finished, is_run, not_a_run
from recyclelora.system.errors import UserError
from recyclelora.system.imports import quick_imports


def repeat(config: RepeatConfig, trial: int | None = None) -> None:
    """Train what ``run`` trained, in ``output_dir``, and say whether points and adapter are the same.

    Raises:
        UserError: not a finished run; code, packages, data or weights are others than then; or it found something else.
    """
    run_dir = Path(config.run)
    if not is_run(run_dir):
        raise UserError(f"run={not_a_run(run_dir)}")
    if not is_finished(run_dir):
        raise UserError(f"run={run_dir}: not the directory of a finished run")
    with quick_imports():
        from recyclelora.runs.repetition import as_asked, differences, disagreements, machine_differences, remedy
        from recyclelora.system.next_steps import next_steps, with_run
        from recyclelora.system.progress import Reporter
        from recyclelora.system.typed_json import read_object
        from recyclelora.training.run import Run

    about = read_object(run_dir / RECORD)
    run = Run.identify(as_asked(load_config(run_dir / CONFIG), config), None)
    if run.directory.path.resolve() == run_dir.resolve():
        raise UserError(f"output_dir={config.output_dir}: the run itself lies there; name another folder")
    reporter = Reporter(enabled=run.fabric.is_global_zero)
    changed = differences(about, run.description)
    if changed and not config.anyway:
        listed = "\n  ".join(changed)
        raise UserError(
            f"run={run_dir}: this is not what it was trained with:\n  {listed}\n{remedy(about)}, "
            "or repeat it all the same with anyway=true"
        )
    for line in [*changed, *machine_differences(about, run.description)]:
        reporter.warn(f"not as it was: {line}")
    run.execute(alone=False)
    if not run.fabric.is_global_zero:
        return
    found = disagreements(run_dir, run.directory.path)
    if found:
        raise UserError(f"run={run_dir}: the repetition in {run.directory.path} differs:\n  " + "\n  ".join(found))
    reporter.note(f"repeated exactly: every point and every tensor is that of {run_dir}")
    reporter.note(next_steps(*with_run(run_dir, "evaluate", "export")))


def main() -> None:
    """``python repeat.py run=<run dir>``."""
    start("repeat", repeat)
