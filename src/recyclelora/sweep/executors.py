"""From ``hydra.launcher`` to the executor that it names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from recyclelora.config.launchers import DriverOptions, LocalOptions, SlurmOptions
from recyclelora.sweep.execution import Executor
from recyclelora.sweep.task import HydraTask
from recyclelora.system.errors import UserError

LOCAL = "hydra_plugins.recyclelora_sweeper.launchers.LocalLauncher"
SLURM = "hydra_plugins.recyclelora_sweeper.launchers.SlurmLauncher"


def make_executor(
    launcher: Mapping[str, Any], task: HydraTask, objectives: Sequence[str] | None, sweep: Path, n_jobs: int,
    study: str,
) -> Executor | None:  # fmt: skip
    """The executor of a launcher's configuration.

    Args:
        launcher: ``hydra.launcher``, as plain values
        task: what trials run
        objectives: see :func:`recyclelora.sweep.task.run_unit`
        sweep: the sweep's folder
        n_jobs: how many trials at a time
        study: the sweep's name

    Returns:
        None for a launcher of another project, and where trials run in the driver's own process.

    Raises:
        UserError: a value that makes no sense, by its key.
    """
    options = read_options(launcher)
    if n_jobs < 1:
        raise UserError(f"hydra.sweeper.n_jobs={n_jobs}: must be at least 1")
    if isinstance(options, SlurmOptions):
        from recyclelora.sweep.slurm.executor import SlurmExecutor

        return SlurmExecutor(options, task, objectives, sweep, n_jobs, study)
    if isinstance(options, LocalOptions) and not options.in_process:
        from recyclelora.sweep.local import LocalExecutor

        gpus = visible_gpus() if options.gpus is None else [str(gpu) for gpu in options.gpus]
        # tests of Hydra's own launchers want what their jobs return; training is slow to import, and writes files
        preload: tuple[str, ...] = getattr(task.function, "preload", ())
        slots = [gpu for gpu in gpus for _ in range(options.trials_per_gpu)]
        return LocalExecutor(
            task, objectives, n_jobs, gpus=slots, gpus_per_trial=options.gpus_per_trial,
            timeout_min=options.timeout_min, preload=preload, collect=not preload,
        )  # fmt: skip
    return None


def read_options(launcher: Mapping[str, Any]) -> LocalOptions | SlurmOptions | None:
    """A launcher's configuration, typed and checked; None for a launcher of another project.

    Raises:
        UserError: a value that makes no sense, by its key.
    """
    kinds: dict[Any, type[LocalOptions] | type[SlurmOptions]] = {LOCAL: LocalOptions, SLURM: SlurmOptions}
    kind = kinds.get(launcher.get("_target_"))
    if kind is None:
        return None
    values = {key: value for key, value in launcher.items() if key != "_target_"}
    unknown = values.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise UserError(f"hydra.launcher has no {', '.join(sorted(unknown))}")
    if isinstance(values.get("driver"), Mapping):
        values["driver"] = DriverOptions(**values["driver"])
    options = kind(**values)
    options.check()
    return options


def visible_gpus() -> list[str]:
    """Ids of this machine's GPUs, found without torch: those that the environment allows, else all."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu.strip() for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()
