"""A user's mistake in one clear line: what is wrong, where, and what is allowed."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recyclelora.config.compose import ConfigError
from recyclelora.config.launchers import LocalOptions, SlurmOptions
from recyclelora.config.messages import in_words
from recyclelora.sweep.command import SHORT
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.system.redaction import redacted
from recyclelora.system.stopping import unread_in_one_line

OF_HYDRA = (
    "execution whitelist", "Only one of --run", "The --resolve flag", "--experimental-rerun does not",
    "Config group override must",
)  # fmt: skip
"""Marks of Hydra's plain ValueErrors: a logging class that it refuses, flags that exclude each other, adapter=null."""

PLACE_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR,
    errno.ENAMETOOLONG, errno.ESTALE,
)  # fmt: skip
"""Of the disk, not of the program: where it happened is all that the user needs to know."""

USAGE_EXIT = 2
"""Exit code for a mistake in the command or its input."""


@contextmanager
def one_clear_line(command: str) -> Iterator[None]:
    """End the process with one line for a user's mistake or an interrupted run; other errors keep their traceback."""
    show_what_can_be_shown()
    try:
        with unread_in_one_line(command), _warnings_in_one_line():
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
        print(f"{command}: {in_words([' '.join(str(error).splitlines()[:2])], command)}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
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


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Say what is meant for users without the place in the code."""
    usual = warnings.formatwarning

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        for_users = issubclass(category, UserWarning)
        return f"warning: {message}\n" if for_users else usual(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def as_config_error() -> Iterator[None]:
    """Raise what Hydra and OmegaConf refuse as one ConfigError with the line that a command prints."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(explain(error)) from error


def show_what_can_be_shown() -> None:
    """Let what a terminal or a log has no character for be written escaped, which is no reason to end a run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
    from recyclelora.sweep import snapshot  # of no use to a command that is right

    said = in_words(lines, command, _sweep_keys())
    if snapshot.VARIABLE in os.environ and re.search("no such (option|key)", said):
        said += "; a sweep has the options of the day it began: snapshot=renew takes today's"
    return said


def _sweep_keys() -> tuple[str, ...]:
    """Keys of sweeper and launcher."""
    launcher = (field.name for kind in (LocalOptions, SlurmOptions) for field in dataclasses.fields(kind))
    return (*(f"hydra.sweeper.{key}" for key in SHORT), *(f"hydra.launcher.{key}" for key in dict.fromkeys(launcher)))
