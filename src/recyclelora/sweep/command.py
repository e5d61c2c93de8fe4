"""A command line before Hydra gets it: whether it is a sweep, the name of its study, short words for its options."""

from __future__ import annotations

import hashlib
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from recyclelora.config.compose import ConfigError, home
from recyclelora.system.checks import file_name
from recyclelora.system.extras import require
from recyclelora.system.next_steps import typed_as

SHORT = (
    "n_trials", "n_jobs", "budget", "repeats", "max_failures", "retry_failed", "confirm", "dry_run", "detach",
    "snapshot", "reuse", "race", "race_seeds", "transfer", "live",
)  # fmt: skip
"""Keys of ``hydra.sweeper`` that may be written without it in a sweep's command."""

CHOSEN_WITH_A_SLASH = ("hydra.sweeper=", "hydra.launcher=")

PATHS = ("--config-path", "-cp")
"""Hydra takes them as relative to the file with its decorator, which a user cannot know."""


def checked_arguments(command: str, arguments: list[str]) -> list[str]:
    """The arguments that Hydra gets: a multirun has a study name, and what needs a multirun is refused without one.

    The study's name follows from the swept overrides, so that the same command finds the same folder.

    Raises:
        ConfigError: a mistake that Hydra would not see, or only after it has made a folder.
    """
    for argument in arguments:
        if "_target_" in argument.split("=", 1)[0]:
            raise ConfigError(f"{argument}: nothing is built from a _target_; choose parts by name: adapter=lora")
    for argument in (a for a in arguments if a.startswith(CHOSEN_WITH_A_SLASH)):
        raise ConfigError(f"{argument}: options are chosen with a slash: {argument.replace('.', '/', 1)}")
    for name in (a.split("=", 1)[1] for a in arguments if a.startswith("study=")):
        for _, what in file_name("study", name):  # Hydra creates the sweep's folder before the configuration is checked
            raise ConfigError(f"study={name}: {what}")
    arguments = _absolute(arguments)
    multirun = is_multirun(_parsed(arguments))
    if command != "train":
        if multirun:
            raise ConfigError(f"-m is for train.py: {command} takes one setting at a time")
        return [_quoted(argument, "reference=") for argument in arguments]
    if not multirun:
        _needs_no_multirun(arguments)
        return arguments
    require("a sweep (-m)", "sweep", "optuna", "cloudpickle", "hydra_plugins.hydra_optuna_sweeper")
    short = tuple(f"{key}=" for key in SHORT)
    arguments = [f"hydra.sweeper.{a}" if a.startswith(short) else a for a in arguments]
    if any(a.startswith("study=") for a in arguments):
        return arguments
    searching = ("hydra.sweeper.params.", "hydra/sweeper", "hydra.sweeper.sampler", "hydra.sweeper.direction")
    overrides = sorted(
        a for a in arguments
        if "=" in a and (a.startswith(searching) or not a.startswith(("hydra", "fresh=", "output_dir=")))
    )  # fmt: skip
    return [*arguments, f"study={study_name(overrides)}"]


def _parsed(arguments: Sequence[str]) -> Namespace:
    """As Hydra parses them."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; Hydra's own options: --hydra-help")

    parser.error = refuse  # type: ignore[method-assign]
    found: Namespace = parser.parse_intermixed_args(arguments)
    return found


def is_multirun(given: Namespace) -> bool:
    """Whether a parsed command line is a sweep: by ``-m``, or by ``hydra.mode`` there or in the primary config."""
    modes = [o.partition("=")[2] for o in given.overrides if o.lstrip("+").startswith("hydra.mode=")]
    return given.multirun or (modes[-1] if modes else _primary_mode(given)) == "MULTIRUN"


def _primary_mode(given: Namespace) -> str | None:
    """``hydra.mode`` of a primary config of the user's own."""
    if given.config_name is None:
        return None
    for folder in filter(None, (given.config_dir, given.config_path, home() / "conf")):
        path = Path(folder) / f"{given.config_name.removesuffix('.yaml')}.yaml"
        if path.is_file():
            try:
                return str(OmegaConf.select(OmegaConf.load(path), "hydra.mode"))
            except (OSError, ValueError, YAMLError, OmegaConfBaseException):
                return None  # Hydra says what is wrong with it
    return None


def _quoted(argument: str, key: str) -> str:
    """A group's name, such as ``adapter=lora, rank=8``, in the quotes that Hydra's grammar wants."""
    value = argument.removeprefix(key)
    plain = value == argument or not set("=,") & set(value) or value[:1] in ("'", '"')
    return argument if plain else f'{key}"{value}"'


def _needs_no_multirun(arguments: Sequence[str]) -> None:
    """Refuse what has a meaning in sweeps only."""
    whole = typed_as("train", "-m", *arguments)
    for start in ("sweeps=", "hydra/launcher=slurm", "hydra/sweeper"):
        for hit in [a for a in arguments if a.lstrip("+").startswith(start) and not a.endswith(("=null", "=None"))]:
            raise ConfigError(f"{hit} needs a multirun: {whole}")
    for hit in [a for a in arguments if a.startswith(tuple(f"{key}=" for key in SHORT))]:
        raise ConfigError(f"{hit} is for sweeps: {whole}")


def _absolute(arguments: Sequence[str]) -> list[str]:
    """``--config-path`` as from the working directory."""
    found = list(arguments)
    for index, argument in enumerate(found):
        flag, equals, value = argument.partition("=")
        if flag in PATHS and equals and Path(value).is_dir():
            found[index] = f"{flag}={Path(value).absolute()}"
        elif argument in PATHS and index + 1 < len(found) and Path(found[index + 1]).is_dir():
            found[index + 1] = str(Path(found[index + 1]).absolute())
    return found


def study_name(overrides: list[str]) -> str:
    """A folder name for a sweep: the name of its ``sweeps`` file or the keys it varies, and a hash of its overrides."""
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    sweeps = [o.split("=", 1)[1] for o in overrides if o.startswith("sweeps=")]
    varied = sweeps or [o.split("=", 1)[0].split(".")[-1] for o in overrides if "," in _outside_brackets(o)]
    return re.sub(r"[^\w-]", "_", "-".join([*(varied or ["study"]), digest]))


def _outside_brackets(override: str) -> str:
    """An override without its lists and dictionaries, whose commas do not sweep."""
    return re.sub(r"\[.*?\]|\{.*?\}", "", override.split("=", 1)[1])
