"""Adapters of other packages, found by the entry points of what is installed; never by a path in a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from recyclelora.system.errors import UserError

ADAPTER_GROUP = "recyclelora.adapters"
"""Entry points of this group: kind -> configuration dataclass, see ``schemas.OwnAdapter``."""

CONF_GROUP = "recyclelora.conf"
"""Entry points of this group: any name -> package with option files, laid out as ``conf/`` is."""


def own_adapters(built_in: Mapping[str, type]) -> dict[str, type]:
    """Configuration dataclasses of installed packages, by kind.

    Raises:
        UserError: naming the package whose entry point is broken or takes the name of something built in.
    """
    return {entry.name: _checked(entry, built_in) for entry in entry_points(group=ADAPTER_GROUP)}


@cache
def conf_folders() -> tuple[str, ...]:
    """Where Hydra finds the option files of installed packages; what is installed is looked up once per process.

    Raises:
        UserError: naming the package whose entry point is broken.
    """
    return tuple(f"file://{folder}" for entry in entry_points(group=CONF_GROUP) for folder in _loaded(entry).__path__)


def _checked(entry: EntryPoint, built_in: Mapping[str, type]) -> type:
    what = _described(entry)
    if entry.name in built_in:
        raise UserError(f"{what}: the adapter kind {entry.name!r} is built in; give yours another name")
    found = _loaded(entry)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(f"{what}: must be a dataclass with the fields kind and name")
    defaults = {field.name: field.default for field in dataclasses.fields(found)}
    if defaults.get("kind") != entry.name or not isinstance(defaults.get("name"), str):
        raise UserError(f"{what}: must have the fields kind = {entry.name!r} and name, with a default")
    if not callable(getattr(found, "method", None)):
        raise UserError(f"{what}: must have a method() that returns what adapts a backbone (adapters.method.Method)")
    return found


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # whatever a foreign module raises
        raise UserError(
            f"{_described(entry)}: {type(error).__name__}: {error}; mend the package or uninstall it"
        ) from error


def _described(entry: EntryPoint) -> str:
    origin = f"package {entry.dist.name}, " if entry.dist else ""
    return f"{origin}entry point {entry.name} = {entry.value}"
