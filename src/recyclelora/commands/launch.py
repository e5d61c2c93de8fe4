"""From the command line to a typed configuration: Hydra composes, and calls the command's task."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from recyclelora.commands.clear_line import explain, one_clear_line
from recyclelora.config.compose import commanding, home, register_schemas, typed
from recyclelora.config.option_files import allow_reading
from recyclelora.runs.identity import trains_as
from recyclelora.sweep.command import checked_arguments
from recyclelora.system.cores import patient_threads, short_sockets
from recyclelora.system.stopping import ending_at_once

T = TypeVar("T")
Task = Callable[[Any, int | None], float | None]
"""What a command does: (typed configuration, trial number of a multirun or None) -> what a sweep maximises."""

MAY_BE_BUILT = ["logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"]
"""All that Hydra may build from a ``_target_`` or a logging class, wherever it is written."""


@contextmanager
def launched(command: str, task: Task, *, config_name: str | None = None) -> Iterator[Callable[[], None]]:
    """What composes a configuration with the command line and calls ``task``; ends the process on a mistake.

    A context and no function that calls it: the way down to a training step is as short as that.

    Args:
        command: its name in messages
        task: what it does
        config_name: the file in ``conf/``; by default the command's own
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that the message is ours
    register_schemas()
    with one_clear_line(command), commanding():
        short_sockets()
        sys.argv[1:] = checked_arguments(command, sys.argv[1:])
        allow_reading(sys.argv[1:])
        job = Job(command, task)
        yield hydra.main(str(home() / "conf"), config_name or command, execution_whitelist=MAY_BE_BUILT)(job)


class Job:
    """The picklable task that Hydra runs, here, in a process of its own or on a SLURM node."""

    preload = ("recyclelora.training.run",)
    """Slow imports that processes of a sweep share."""

    def __init__(self, command: str, task: Task) -> None:
        self.command = command
        self.task = task

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In a job's process, before it composes: the rules of option files hold there, too."""
        self.__dict__ |= state
        register_schemas()

    @staticmethod
    def check(node: DictConfig) -> None:
        """Check a composed configuration and do nothing else; a sweep does so before its first trial."""
        typed(without_hydra(node))

    @staticmethod
    def identity(node: DictConfig) -> str:
        """Equal for configurations that would train the same; a sweep trains each once."""
        return trains_as(typed(without_hydra(node)))

    @staticmethod
    def beside(folder: Path, node: DictConfig) -> AbstractContextManager[Any]:
        """What runs beside a whole sweep: processes that feed MLflow, and its page, from the files of all its runs."""
        from recyclelora.reports.live import watched
        from recyclelora.tracking.process import asked_for, followed

        kinds = [kind for kind in asked_for(node.tracking) if kind == "mlflow"]  # others follow each run
        page = watched(folder) if node.hydra.sweeper.get("live", True) else nullcontext()
        return together(page, followed(folder, kinds, node.tracking.uri))

    @staticmethod
    def explain(error: Exception) -> str:
        """A mistake in one line."""
        return explain(error)

    def __call__(self, node: DictConfig) -> float | None:
        """Check the composed configuration and run the task."""
        register_schemas()
        patient_threads()
        kept = "what was finished is kept; the same command does the rest"
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # one bad trial must not end the others
            with ending_at_once(kept):
                return self.task(typed(node), int(HydraConfig.get().job.num))
        # here, because Hydra would print a line of its own first
        with one_clear_line(self.command), ending_at_once(kept):
            return self.task(typed(node), None)


@contextmanager
def together(page: AbstractContextManager[None], feed: AbstractContextManager[T]) -> Iterator[T]:
    """Both, and what the second gives."""
    with page, feed as found:
        yield found


def without_hydra(node: DictConfig) -> DictConfig:
    """A composed configuration as the task gets it."""
    node = node.copy()
    with read_write(node), open_dict(node):
        node.pop("hydra", None)
    return node
