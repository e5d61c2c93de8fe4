"""``study.json``: what a sweep was begun with, and with what it may go on."""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import yaml
from omegaconf import DictConfig, OmegaConf

from recyclelora.runs.directory import is_run
from recyclelora.runs.identity import FREE
from recyclelora.system.checks import additions, as_override, identity_fields
from recyclelora.system.errors import UserError
from recyclelora.system.storage import write_json
from recyclelora.system.typed_json import Time, read_record

POINT = "point"
"""Name of the parameter that chooses one of ``hydra.sweeper.points``."""

MAY_CHANGE = (
    "name", "n_trials", "budget", "command", "created", "pruner", "warm_start", "fixed", "reuse", "race_seeds",
)  # fmt: skip
"""Entries of ``study.json`` with which the same study may go on; a renamed folder is the same study."""

GRID_MAY_CHANGE = ("space", "sampler")
"""The same of a grid, which takes more values, or fewer; see ``earlier_calls.fit_grid``."""


class RaceRecord(TypedDict):
    """``race`` of ``study.json``."""

    references: list[str]
    on: str
    alpha: float
    higher: bool


class TransferRecord(TypedDict):
    """``transfer`` of ``study.json``."""

    ranges: dict[str, list[float]]


class StudyRecord(TypedDict):
    """What readers need of ``study.json``."""

    directions: list[Literal["maximize", "minimize"]]
    objectives: list[str]
    n_trials: int
    command: str
    created: Time
    name: NotRequired[str]
    config: NotRequired[dict[str, Any]]
    tuned_on_targets: NotRequired[bool]
    race: NotRequired[RaceRecord | None]
    race_seeds: NotRequired[int]
    transfer: NotRequired[TransferRecord | None]


def read_study(sweep: Path) -> StudyRecord | None:
    """``study.json`` of a sweep; None where there is none.

    Raises:
        UserError: it is not what was written.
    """
    path = sweep / "study.json"
    return read_record(path, StudyRecord) if path.exists() else None


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's, of this project's sweeper or of Hydra's, and not a run's."""
    known = (folder / "study.json").is_file() or (folder / "ledger").is_dir()
    trials = (path for path in folder.glob("*_*-*") if re.match(r"(trial|confirm)_\d+-", path.name))
    return not is_run(folder) and (known or any(trials))


def is_grid(about: Mapping[str, Any]) -> bool:
    """Whether a study takes every point of its space."""
    return about.get("sampler") in (None, "GridSampler")


def other_values(folder: Path, about: Mapping[str, Any], since: Mapping[str, Any]) -> bool:
    """Whether a grid was begun with other values than it is to have now.

    An option that its version did not know, given now so that it goes on as it was, is none of them.
    """
    stored = _stored(folder)
    if stored is None:
        return False
    if not (is_grid(stored) and is_grid(about)):
        return False
    kept = {f"{_short(key)}={as_override(then)}" for key, then in since.items()}
    fixed = {text for text in about["fixed"] if text not in kept}
    return stored.get("space") != about["space"] or {*(stored.get("fixed") or ())} - kept != fixed


def _stored(folder: Path) -> dict[str, Any] | None:
    """What a sweep was begun with.

    Raises:
        UserError: ``study.json`` is not what was written.
    """
    try:
        stored = read_study(folder)
    except UserError as error:
        raise UserError(
            f"{error}; if what is in ledger/ is right, remove this file, and the command goes on"
        ) from error
    return None if stored is None else dict(stored)


def options_since(config: DictConfig, path: str = "config") -> Iterator[tuple[str, Any]]:
    """Keys of ``study.json`` that earlier versions do not know, and what those versions did."""
    kind = OmegaConf.get_type(config)
    if dataclasses.is_dataclass(kind):
        for name, default in additions(kind).items():
            yield f"{path}.{name}", identity_fields(default)
    for name in map(str, config):
        child = config._get_node(name)
        if isinstance(child, DictConfig) and not (child._is_none() or child._is_missing() or child._is_interpolation()):
            yield from options_since(child, f"{path}.{name}")


def brought_back(fixed: Mapping[str, str], since: Mapping[str, Any]) -> list[str]:
    """The overrides of a command, by key, that set options which earlier versions do not know to what those did."""
    values = {text: f"config.{key.lstrip('+')}" for key, text in fixed.items()}
    return [t for t, key in values.items() if key in since and yaml.safe_load(t.partition("=")[2]) == since[key]]


def refuse_others(folder: Path, about: Mapping[str, Any], since: Mapping[str, Any]) -> None:
    """Let a study go on only with what it was begun with.

    Args:
        folder: of the sweep
        about: see :func:`recyclelora.sweep.planning.described`
        since: see :func:`options_since`

    Raises:
        UserError: naming what differs, and what gives younger options the meaning that they had before they were added.
    """
    stored = _stored(folder)
    if stored is None:
        return
    free = (*MAY_CHANGE, *(GRID_MAY_CHANGE if is_grid(stored) and is_grid(about) else ()))
    asked = {key: value for key, value in about.items() if key not in free}
    then = _with_options_since(stored, about, since)
    differences = {key: both for name in asked for key, both in _differences(name, then.get(name), asked[name])}
    if differences:
        lines = [
            f"  {_short(key)}: was {_or_varied(key, was, stored)}, now {_or_varied(key, now, about)}"
            for key, (was, now) in list(differences.items())[:10]
        ]
        back = [f"{_short(key)}={as_override(was)}" for key, (was, _) in differences.items() if key in since]
        if back:
            lines.append(f"  to go on with newer options as they were then, add: {shlex.join(back)}")
        raise UserError(
            f"{folder.name}: was begun with other settings; give it another name with study=, or start over with "
            "fresh=true:\n" + "\n".join(lines)
        )


def _or_varied(key: str, value: Any, about: Mapping[str, Any]) -> Any:
    """The value of a key, unless the sweep varies it, so that this is only what stands in the configuration."""
    return "varied" if _short(key) in (about.get("space") or {}) else value


def record(folder: Path, about: dict[str, Any], since: Mapping[str, Any]) -> None:
    """Write ``study.json``; see :func:`refuse_others`."""
    refuse_others(folder, about, since)
    stored = _stored(folder)
    about["created"] = time.strftime("%Y-%m-%dT%H:%M:%S%z") if stored is None else stored["created"]
    write_json(folder / "study.json", about)


def _with_options_since(stored: Any, about: Mapping[str, Any], since: Mapping[str, Any], path: str = "") -> Any:
    """What was stored, with each younger option that it does not know as its version behaved."""
    if not isinstance(stored, dict):
        return stored
    new = {name: since[f"{path}{name}"] for name in about if name not in stored and f"{path}{name}" in since}
    known = {
        name: _with_options_since(value, inside, since, f"{path}{name}.")
        if isinstance(inside := about.get(name), dict)
        else value
        for name, value in stored.items()
    }
    return known | new


def _differences(key: str, before: Any, after: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(key, (before, after)) of all that differs."""
    if _short(key) in FREE:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from _differences(f"{key}.{name}", before.get(name), after.get(name))
    elif before != after:
        yield key, (before, after)


def _short(key: str) -> str:
    return key.removeprefix("config.")
