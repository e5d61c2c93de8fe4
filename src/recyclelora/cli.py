"""From the command line to a typed configuration: Hydra composes, mistakes become one clear line."""

from __future__ import annotations

import errno
import hashlib
import os
import re
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

from recyclelora.config import ConfigError, home, register_schemas, typed
from recyclelora.errors import Interrupted, UserError
from recyclelora.option_files import allow_reading
from recyclelora.redaction import redacted
from recyclelora.schemas import file_name, nearest

Task = Callable[[Any, int | None], float | None]
"""What a command does: (typed configuration, trial number of a multirun or None) -> what a sweep maximises."""

MAY_BE_BUILT = ["logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"]
"""All that Hydra may build from a ``_target_`` or a logging class, wherever it is written."""

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
    with one_clear_line(command):
        sys.argv[1:] = checked_arguments(command, sys.argv[1:])
        allow_reading(sys.argv[1:])
        job = Job(command, task)
        main = hydra.main(str(home() / "conf"), config_name or command, execution_whitelist=MAY_BE_BUILT)
        main(job)()


@contextmanager
def one_clear_line(command: str) -> Iterator[None]:
    """End the process with one line for a user's mistake or an interrupted run; other errors keep their traceback."""
    try:
        yield
    except Interrupted as stop:
        print(f"{command}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    except (UserError, ConfigError, HydraException, OmegaConfBaseException, YAMLError) as error:
        if "RECYCLELORA_TRACEBACK" in os.environ:
            raise
        print(f"{command}: {redacted(explain(error))}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
    except ValueError as error:
        if "execution whitelist" not in str(error):  # so Hydra refuses a logging class
            raise
        print(f"{command}: {' '.join(str(error).splitlines()[:2])}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
    except OSError as error:
        if error.errno not in PLACE_ERRORS or "RECYCLELORA_TRACEBACK" in os.environ:
            raise
        print(f"{command}: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(USAGE_EXIT)


class Job:
    """The picklable task that Hydra runs, here, in a process of its own or on a SLURM node."""

    preload = ("recyclelora.run",)
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
    def beside(folder: Path, node: DictConfig) -> AbstractContextManager[Any]:
        """What runs beside a whole sweep: the process that feeds MLflow from the files of all its runs."""
        from recyclelora.tracking import mirrored_sweep

        return mirrored_sweep(folder, bool(node.tracking.mlflow))

    @staticmethod
    def explain(error: Exception) -> str:
        """A mistake in one line."""
        return explain(error)

    def __call__(self, node: DictConfig) -> float | None:
        """Check the composed configuration and run the task."""
        register_schemas()
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # one bad trial must not end the others
            return self.task(typed(node), int(HydraConfig.get().job.num))
        with one_clear_line(self.command):  # here, because Hydra would print a line of its own first
            return self.task(typed(node), None)


def without_hydra(node: DictConfig) -> DictConfig:
    """A composed configuration as the task gets it."""
    node = node.copy()
    with read_write(node), open_dict(node):
        node.pop("hydra", None)
    return node


SHORT = ("n_trials", "n_jobs", "repeats", "max_failures", "retry_failed", "confirm", "dry_run", "detach", "snapshot")
"""Keys of ``hydra.sweeper`` that may be written without it after ``-m``."""


def checked_arguments(command: str, arguments: list[str]) -> list[str]:
    """The arguments that Hydra gets: a multirun has a study name, and what needs a multirun is refused without one.

    The study's name follows from the swept overrides, so that the same command finds the same folder.
    """
    for argument in arguments:
        if "_target_" in argument.split("=", 1)[0]:
            raise ConfigError(f"{argument}: nothing is built from a _target_; choose parts by name: adapter=lora")
    for name in (a.split("=", 1)[1] for a in arguments if a.startswith("study=")):
        for _, what in file_name("study", name):  # Hydra creates the sweep's folder before the configuration is checked
            raise ConfigError(f"study={name}: {what}")
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    if command != "train":
        if multirun:
            raise ConfigError(f"-m is for train.py: {command} takes one setting at a time")
        return arguments
    for start in ("sweeps=", "hydra/launcher=slurm"):
        hits = [a for a in arguments if a.lstrip("+").startswith(start) and not a.endswith(("=null", "=None"))]
        if hits and not multirun:
            raise ConfigError(f"{hits[0]} needs a multirun: python train.py -m {' '.join(arguments)}")
    short = tuple(f"{key}=" for key in SHORT)
    if not multirun:
        hits = [a for a in arguments if a.startswith(short)]
        if hits:
            raise ConfigError(f"{hits[0]} is for sweeps: python train.py -m {' '.join(arguments)}")
        return arguments
    arguments = [f"hydra.sweeper.{a}" if a.startswith(short) else a for a in arguments]
    if any(a.startswith("study=") for a in arguments):
        return arguments
    searching = ("hydra.sweeper.params.", "hydra/sweeper", "hydra.sweeper.sampler", "hydra.sweeper.direction")
    overrides = sorted(
        a for a in arguments
        if "=" in a and (a.startswith(searching) or not a.startswith(("hydra", "fresh=", "output_dir=")))
    )  # fmt: skip
    return [*arguments, f"study={study_name(overrides)}"]


def study_name(overrides: list[str]) -> str:
    """A folder name for a sweep: the name of its ``sweeps`` file or the keys it varies, and a hash of its overrides."""
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    sweeps = [o.split("=", 1)[1] for o in overrides if o.startswith("sweeps=")]
    varied = sweeps or [o.split("=", 1)[0].split(".")[-1] for o in overrides if "," in _outside_brackets(o)]
    return re.sub(r"[^\w-]", "_", "-".join([*(varied or ["study"]), digest]))


def _outside_brackets(override: str) -> str:
    """An override without its lists and dictionaries, whose commas do not sweep."""
    return re.sub(r"\[.*?\]|\{.*?\}", "", override.split("=", 1)[1])


def explain(error: Exception) -> str:
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
    return _with_nearest(lines)


def _with_nearest(lines: list[str]) -> str:
    """Join an explanation's lines; for an unknown option of a group, put the available ones behind the nearest."""
    text = "; ".join(line.rstrip(".:") for line in lines if not line.startswith("full_key: ") or len(lines) < 3)
    missing = re.search(r"Could not find '([^']+)'; Available options in '([^']+)'(.*?)(; Config search path|$)", text)
    if not missing:
        return text
    group, names = missing[2], [n.strip() for n in missing[3].split(";") if n.strip()]
    wanted = missing[1].rsplit("/", 1)[-1]
    return f"{group}={wanted}: no such option{nearest(wanted, names)}; available: {', '.join(names)}"
