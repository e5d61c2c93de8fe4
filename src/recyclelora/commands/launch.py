"""From the command line to a typed configuration: Hydra composes, mistakes become one clear line."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recyclelora.config.compose import ConfigError, commanding, home, register_schemas, typed
from recyclelora.config.launchers import LocalOptions, SlurmOptions
from recyclelora.config.messages import in_words
from recyclelora.config.option_files import allow_reading
from recyclelora.runs.identity import trains_as
from recyclelora.sweep.command import SHORT, checked_arguments
from recyclelora.system.cores import short_sockets
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.system.redaction import redacted
from recyclelora.system.stopping import ending_at_once

Task = Callable[[Any, int | None], float | None]
"""What a command does: (typed configuration, trial number of a multirun or None) -> what a sweep maximises."""

MAY_BE_BUILT = ["logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"]
"""All that Hydra may build from a ``_target_`` or a logging class, wherever it is written."""

OF_HYDRA = ("execution whitelist", "Only one of --run", "The --resolve flag", "--experimental-rerun does not")
"""Marks of Hydra's plain ValueErrors: a logging class that it refuses, flags that exclude each other."""

PLACE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG, errno.ESTALE,
)  # fmt: skip
"""Of the disk, not of the program: where it happened is all that the user needs to know."""

USAGE_EXIT = 2
"""Exit code for a mistake in the command or its input."""


def launch(command: str, task: Task, *, config_name: str | None = None) -> None:
    """Compose a configuration with the command line and call ``task``; end the process on a mistake.

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
        main = hydra.main(str(home() / "conf"), config_name or command, execution_whitelist=MAY_BE_BUILT)
        main(job)()


@contextmanager
def one_clear_line(command: str) -> Iterator[None]:
    """End the process with one line for a user's mistake or an interrupted run; other errors keep their traceback."""
    show_what_can_be_shown()
    try:
        yield
    except Interrupted as stop:
        print(f"{command}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except (UserError, ConfigError, HydraException, OmegaConfBaseException, YAMLError) as error:
        if "RECYCLELORA_TRACEBACK" in os.environ:
            raise
        print(f"{command}: {redacted(explain(error, command))}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
    except ValueError as error:
        if not any(mark in str(error) for mark in OF_HYDRA):
            raise
        print(f"{command}: {' '.join(str(error).splitlines()[:2])}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains as it flushes
        print(f"{command}: nothing reads the output any more", file=sys.stderr)
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in PLACE_ERRORS or "RECYCLELORA_TRACEBACK" in os.environ:
            raise
        print(f"{command}: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
    except Exception as error:
        if type(error).__module__.split(".")[0] != "submitit":  # Hydra's launcher passes on what sbatch says
            raise
        print(f"{command}: {'; '.join(str(error).splitlines()[:2])}", file=sys.stderr)
        sys.exit(USAGE_EXIT)


def show_what_can_be_shown() -> None:
    """Let what a terminal or a log has no character for be written escaped, which is no reason to end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
        """What runs beside a whole sweep: the process that feeds MLflow from the files of all its runs."""
        from recyclelora.tracking import mirrored_sweep

        return mirrored_sweep(folder, bool(node.tracking.mlflow), node.tracking.uri)

    @staticmethod
    def explain(error: Exception) -> str:
        """A mistake in one line."""
        return explain(error)

    def __call__(self, node: DictConfig) -> float | None:
        """Check the composed configuration and run the task."""
        register_schemas()
        kept = "what was finished is kept; the same command does the rest"
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # one bad trial must not end the others
            with ending_at_once(kept):
                return self.task(typed(node), int(HydraConfig.get().job.num))
        # here, because Hydra would print a line of its own first
        with one_clear_line(self.command), ending_at_once(kept):
            return self.task(typed(node), None)


def without_hydra(node: DictConfig) -> DictConfig:
    """A composed configuration as the task gets it."""
    node = node.copy()
    with read_write(node), open_dict(node):
        node.pop("hydra", None)
    return node


def explain(error: Exception, command: str = "train") -> str:
    """A mistake in one line or a few: what is wrong, where, and what is allowed.

    Hydra and OmegaConf spread the key, the reason and the allowed values over an exception and its causes.
    """
    if isinstance(error, ConfigError | UserError):
        return str(error)
    lines: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        for line in str(cause).splitlines():
            line = line.strip()
            if line and not line.startswith(("reference_type", "object_type", "To append")) and line not in lines:
                lines.append(line)
        cause = cause.__cause__
    return in_words(lines, command, _sweep_keys())


def _sweep_keys() -> tuple[str, ...]:
    """Keys of sweeper and launcher."""
    launcher = (field.name for kind in (LocalOptions, SlurmOptions) for field in dataclasses.fields(kind))
    return (*(f"hydra.sweeper.{key}" for key in SHORT), *(f"hydra.launcher.{key}" for key in dict.fromkeys(launcher)))
