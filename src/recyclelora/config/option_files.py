"""Option files are data: what acts comes from the command line, or from a file that the user has named as trusted.

Hydra's own keys can do more than set values: change the environment of a process, open files for writing, name the
program that starts a job. A file that somebody else wrote must not; see SECURITY.md. Hydra is asked for each file as it
composes, with the place that its content gets, so that no package header or defaults list hides a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from recyclelora.config.launchers import LocalOptions, SlurmOptions
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import conf_folders
from recyclelora.system.redaction import is_secret

TRUSTED = "RECYCLELORA_TRUSTED"
"""Environment variable: option files, or folders of them, that may act; separated by colons."""
READABLE = "RECYCLELORA_READABLE"
"""Environment variable: names of secret variables that the user's own command line reads, for this and its jobs."""

HARMLESS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.verbose", "hydra.job.name",
            "hydra.job.chdir", "hydra.job.config", "hydra.aliases")  # fmt: skip
"""Keys of Hydra that only set values, beside those of sweeper and launcher."""
FIRST_SEARCH = '${with_plugins:"file://${oc.env:RECYCLELORA_HOME}"}'
"""``hydra.searchpath`` of the first release's train.yaml, which users have copied: what is searched anyway."""
SWEEPER_ACTS = ("storage", "warm_start", "transfer", "custom_search_space")
SPACE = ("params", "points", "enqueue", "conditions", "confirm_by")
"""Keys of ``hydra.sweeper`` that hold overrides."""
LAUNCHER_ACTS = ("setup", "python", "srun_args", "additional_parameters")
LAUNCHER = {f.name for kind in (LocalOptions, SlurmOptions) for f in fields(kind)} - {*LAUNCHER_ACTS}
PLACES = ("output_dir", "hydra.sweep.dir", "study")

_READS = re.compile(r"oc\.env\s*:\s*[\"']?(\w+)")
_SINGLE, _SEARCH = ConfigLoaderImpl._load_single_config, ConfigLoaderImpl._process_config_searchpath

_own: set[Path] = set()
_trusted_reads: set[str] = set()
_places: dict[str, Path] = {}
"""Of the latest composition: key of :data:`PLACES` -> the untrusted file that sets it."""


_given: set[str] = set()
"""Keys of the latest composition's overrides."""


def guard(own: Path, commands: Sequence[str]) -> None:
    """Let no option file act from now on, in this process.

    Args:
        own: the project's folder with ``conf/``
        commands: names of the files directly in it that belong to the project, and may act
    """
    _own.update(own / "conf" / f"{name}.yaml" for name in commands)
    ConfigLoaderImpl._load_single_config = _load_single  # type: ignore[method-assign,assignment]
    ConfigLoaderImpl._process_config_searchpath = _search  # type: ignore[method-assign,assignment]
    OmegaConf.register_resolver("oc.env", _environment, replace=True)


def allow_reading(arguments: Sequence[str]) -> None:
    """Let the variables be read that the user's own command line names, also by jobs of this process."""
    names = {*os.environ.get(READABLE, "").split(","), *(n for text in arguments for n in _READS.findall(text))}
    os.environ[READABLE] = ",".join(sorted(names - {""}))


def place_chosen_by() -> Path | None:
    """The untrusted option file that says where the sweep of the latest composition lies, if one does."""
    return next((path for key, path in _places.items() if key not in _given), None)


def trusted() -> list[Path]:
    """Files and folders that the user has named as trusted."""
    return [Path(name).expanduser().resolve() for name in os.environ.get(TRUSTED, "").split(os.pathsep) if name]


def _load_single(loader: ConfigLoaderImpl, default: Any, repo: Any) -> ConfigResult:
    found = _SINGLE(loader, default, repo)
    _check(found, str(default.config_path))
    return found


def _search(loader: ConfigLoaderImpl, name: str | None, overrides: Any, repo: Any) -> None:
    global _given
    _places.clear()
    _given = {str(override.key_or_group) for override in overrides}
    primary = None if name is None else repo.load_config(config_path=name)
    if primary is not None:  # before its search path is obeyed: a package named there is imported
        _check(primary, str(name))
    _SEARCH(loader, name, overrides, repo)


def _check(found: ConfigResult, name: str) -> None:
    """Refuse a file that acts, unless it may.

    Raises:
        UserError: naming file and keys.
    """
    scheme, _, folder = found.path.partition("://")
    if scheme != "file":  # an installed package
        return
    path = Path(folder) / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if path in _own:
        return
    if any(path.resolve().is_relative_to(place) for place in trusted()):
        _trusted_reads.update(_READS.findall(OmegaConf.to_yaml(found.config, resolve=False)))
        return
    if f"file://{folder}" in conf_folders():
        return
    leaves = dict(_leaves(OmegaConf.to_container(found.config, resolve=False), ""))
    acting = [key for key, value in leaves.items() if _acts(key, value)]
    if acting:
        raise UserError(
            f"{path}: {', '.join(acting[:5])}: an option file may not set what acts outside the run; give it on the "
            f"command line, or, if you trust the file: export {TRUSTED}={path.resolve()}"
        )
    for key in PLACES:
        if leaves.get(key) is not None and (key != "study" or not re.fullmatch(r"[\w.-]+", str(leaves[key]))):
            _places[key] = path


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a file; the keys of a search space stay whole, as one value."""
    if not isinstance(node, dict) or path in {f"hydra.sweeper.{key}" for key in SPACE}:
        yield path, node
        return
    for key, child in node.items():
        yield from _leaves(child, f"{path}.{key}" if path else str(key))


def _acts(key: str, value: Any) -> bool:
    """Whether a value of an option file does more than set a value."""
    if key == "fresh":
        return value is not False
    if key in ("tracking", "tracking.uri"):
        return value is not None
    if not (key == "hydra" or key.startswith("hydra.")):
        return False
    if "_target_" in key:
        return True
    room, _, name = key.removeprefix("hydra.").partition(".")
    if room == "sweeper" and name in SPACE:
        return not isinstance(value, dict | list) or any(map(_override_acts, _overrides(name, value)))
    if room == "sweeper" and name:
        return name in SWEEPER_ACTS and value is not None
    if room == "launcher" and name:
        return name.split(".")[0] not in LAUNCHER and value is not None
    harmless = {"hydra.output_subdir": None, "hydra.searchpath": FIRST_SEARCH}
    return not (key.startswith(HARMLESS) or (key in harmless and value == harmless[key]))


def _overrides(name: str, space: dict[str, Any] | list[Any]) -> Iterator[str]:
    """What a search space asks for, as overrides or at least their keys."""
    parts = space if isinstance(space, list) else space.values() if name == "points" else [space]
    for part in parts:
        if isinstance(part, dict):
            yield from (f"{key}={value}" for key, value in part.items())
        elif isinstance(part, list):
            yield from map(str, part)
        else:
            yield str(part)


def _override_acts(text: str) -> bool:
    key = text.partition("=")[0].strip().lstrip("+~").strip()
    return key.startswith(("hydra", "fresh", "tracking")) or any(sign in key for sign in "$@\\")


def _environment(key: str, *default: Any) -> Any:
    """``oc.env``, but for secrets: these are read where the user's own command line or a trusted file says so.

    Raises:
        UserError: a secret that somebody else's file asks for.
    """
    if key in os.environ and is_secret(key) and key not in _trusted_reads | {*os.environ.get(READABLE, "").split(",")}:
        raise UserError(
            f"${{oc.env:{key}}}: an option file may not read what looks like a secret; give it on the command line"
        )
    if key in os.environ:
        return os.environ[key]
    if key == "HOME":  # services and containers may run without it; the account still has one
        return str(Path.home())
    if default:
        return None if default[0] is None else str(default[0])
    raise KeyError(f"Environment variable '{key}' not found")
