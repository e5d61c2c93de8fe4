"""From ``hydra.launcher`` to the executor that it names; another project's launcher runs units in batches."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from recyclelora.config.launchers import DriverOptions, LocalOptions, SlurmOptions
from recyclelora.runs.unit import VARIABLE
from recyclelora.sweep.execution import Executor, Job, Stage, Status, Work
from recyclelora.sweep.task import HydraTask, recorded
from recyclelora.system.errors import UserError, in_one_line
from recyclelora.system.extras import require

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
        require("hydra/launcher=slurm", "sweep", "submitit")
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


# --- launchers of other projects -------------------------------------------------------------------------------------

ATTEMPT = "RECYCLELORA_ATTEMPT"


@dataclass(frozen=True)
class Recorded:
    """A task function that writes its unit's outcome; what a foreign launcher runs."""

    function: TaskFunction
    objectives: Sequence[str] | None

    def __call__(self, node: DictConfig) -> Any:
        """Run the task as the unit that the environment names."""
        work = Work(-1, Path(os.environ[VARIABLE]), int(os.environ[ATTEMPT]), [])
        returned: list[Any] = []

        def call() -> Any:
            returned.append(self.function(node))
            return returned[0]

        _, error = recorded(work, f"{os.uname().nodename}:{os.getpid()}:", call, self.objectives)
        if error is not None:
            raise error
        return returned[0] if returned else None


class BatchExecutor:
    """Runs ``n_jobs`` units at a time through a launcher and waits for all of them: each is as slow as its slowest."""

    def __init__(self, launcher: Launcher, n_jobs: int) -> None:
        self.capacity = self.units_at_once = n_jobs
        self.returns: dict[Path, JobReturn] = {}
        self._launcher = launcher
        self._ended: dict[str, Status] = {}
        self._count = 0

    def submit(self, work: Sequence[Work]) -> list[Job]:
        """Run a batch to its end."""
        overrides = [[*unit.overrides, *_environment(unit)] for unit in work]
        returns = self._launcher.launch(overrides, initial_job_idx=self._count)
        self._count += len(work)
        job = f"batch-{self._count}"
        self.returns |= {unit.folder: returned for unit, returned in zip(work, returns, strict=True)}
        errors = [in_one_line(r._return_value) for r in returns if r.status == JobStatus.FAILED]
        self._ended[job] = Status(Stage.GONE, errors[0] if errors else None)
        return [Job(job, len(work))]

    def status(self, jobs: Collection[str]) -> dict[str, Status]:
        """Batches have ended when they have been submitted; those of an earlier driver died with it."""
        lost = Status(Stage.GONE, "the driver that ran it has ended", node_fault=True, excused=True)
        return {job: self._ended.get(job, lost) for job in jobs}

    def wait(self, seconds: float) -> None:
        """Nothing to wait for."""

    def cancel(self, jobs: Collection[str]) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is held."""


def through_launcher(
    context: HydraContext, function: TaskFunction, config: DictConfig, options: Mapping[str, Any]
) -> BatchExecutor:
    """The executor of the launcher that a configuration names.

    Args:
        context: Hydra's
        function: the task
        config: with ``hydra.launcher``, and without secrets
        options: of ``hydra.sweeper``
    """
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=Recorded(function, options["objectives"]), config=config
    )
    return BatchExecutor(launcher, options["n_jobs"])


def _environment(unit: Work) -> list[str]:
    """Overrides that tell the job, wherever it runs, which unit it is."""
    folder = str(unit.folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"++hydra.job.env_set.{VARIABLE}='{folder}'", f"++hydra.job.env_set.{ATTEMPT}='{unit.attempt}'"]
