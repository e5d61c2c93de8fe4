"""What installed packages add, found by their entry points; never by a path in a configuration.

A group ``recyclelora.<seam>`` holds the additions to one seam, such as adapters or metrics, by the name that a user
gives. ``recyclelora.conf`` holds folders of option files, laid out as ``conf/`` is, by any name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from recyclelora.system.errors import UserError

CONF_GROUP = "recyclelora.conf"


def plugins(group: str, built_in: Container[str], *needs: str) -> dict[str, Any]:
    """What installed packages offer to a seam, by name.

    Args:
        group: of the entry points, such as ``recyclelora.metrics``
        built_in: names that are taken
        needs: names of the methods that each must have; none: it must be callable itself

    Raises:
        UserError: naming the package whose entry point is broken or takes the name of something built in.
    """
    found = {}
    for entry in installed(group):
        found[entry.name] = offered = _free(entry, built_in)
        if not (needs or callable(offered)):
            raise UserError(f"{_described(entry)}: must be callable")
        for name in needs:
            if not callable(getattr(offered, name, None)):
                raise UserError(f"{_described(entry)}: must have a method {name}()")
    return found


def option_plugins(group: str, built_in: Container[str], *needs: str) -> dict[str, type]:
    """`plugins` that are dataclasses of options: ``kind`` is their name, and ``name`` has a default.

    They are read whenever a command starts and may have a ``check()`` as those that are built in.
    """
    for entry in installed(group):
        _check_options(entry, _free(entry, built_in))
    return plugins(group, built_in, *needs)


def conf_folders() -> tuple[str, ...]:
    """Where Hydra finds the option files of installed packages.

    Raises:
        UserError: naming the package whose entry point is broken.
    """
    return tuple(f"file://{folder}" for entry in installed(CONF_GROUP) for folder in _loaded(entry).__path__)


@cache
def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, looked up once per process."""
    return tuple(entry_points(group=group))


def plugin_names(group: str) -> tuple[str, ...]:
    """What the entry points of a group are called; nothing is imported."""
    return tuple(entry.name for entry in installed(group))


def plug_ins() -> list[EntryPoint]:
    """Everything that installed packages add, to whatever seam."""
    groups = [group for group in entry_points().groups if group.startswith("recyclelora.")]
    return [entry for group in sorted(groups) for entry in installed(group)]


def _free(entry: EntryPoint, built_in: Container[str]) -> Any:
    """What an entry point names, under a name that is free."""
    if entry.name in built_in:
        raise UserError(f"{_described(entry)}: {entry.name!r} is built in; give yours another name")
    return _loaded(entry)


def _check_options(entry: EntryPoint, found: Any) -> None:
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(f"{_described(entry)}: must be a dataclass with the fields kind and name")
    defaults = {field.name: field.default for field in dataclasses.fields(found)}
    if defaults.get("kind") != entry.name or not isinstance(defaults.get("name"), str):
        raise UserError(f"{_described(entry)}: must have the fields kind = {entry.name!r} and name, with a default")


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
