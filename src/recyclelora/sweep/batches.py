"""Units through a Hydra launcher that this project does not know: in batches, each as slow as its slowest."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from recyclelora.runs.mailbox import VARIABLE
from recyclelora.sweep.execution import Stage, Status, Work
from recyclelora.sweep.task import recorded

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
    """Runs ``n_jobs`` units at a time through a launcher and waits for all of them."""

    def __init__(self, launcher: Launcher, n_jobs: int) -> None:
        self.capacity = self.units_per_job = n_jobs
        self.returns: dict[Path, JobReturn] = {}
        self._launcher = launcher
        self._ended: dict[str, Status] = {}
        self._count = 0

    def submit(self, work: Sequence[Work]) -> str:
        """Run a batch to its end."""
        overrides = [[*unit.overrides, *_environment(unit)] for unit in work]
        returns = self._launcher.launch(overrides, initial_job_idx=self._count)
        self._count += len(work)
        job = f"batch-{self._count}"
        self.returns |= {unit.folder: returned for unit, returned in zip(work, returns, strict=True)}
        errors = [_first_line(r._return_value) for r in returns if r.status == JobStatus.FAILED]
        self._ended[job] = Status(Stage.GONE, errors[0] if errors else None)
        return job

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


def _first_line(error: object) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _environment(unit: Work) -> list[str]:
    """Overrides that tell the job, wherever it runs, which unit it is."""
    folder = str(unit.folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"++hydra.job.env_set.{VARIABLE}='{folder}'", f"++hydra.job.env_set.{ATTEMPT}='{unit.attempt}'"]
