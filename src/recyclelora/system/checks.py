"""Checks of values that several options share."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, get_args, get_type_hints

from recyclelora.system.redaction import redacted

Problem = tuple[str, str]
"""A field's name and what is wrong with its value."""
Check = Callable[..., Iterator[Problem]]
"""Of a field's name, its value and what bounds it."""


def one_of(name: str, value: str | None, allowed: tuple[str, ...], more: tuple[str, ...] = ()) -> Iterator[Problem]:
    """Yield a problem with the nearest allowed name when ``value`` is none of the names; None its type may allow."""
    allowed = (*allowed, *more)
    if value is not None and value not in allowed:
        yield name, f"must be one of {', '.join(allowed)}{nearest(value, allowed)}"


def file_name(name: str, value: str) -> Iterator[Problem]:
    """Yield a problem unless ``value`` can be part of a file's name and cannot lead to another folder."""
    if not re.fullmatch(r"\w[\w.+-]*", value):
        yield name, "names files: use letters, digits, '_', '-', '+' and '.', and no '.' at the start"


def nearest(word: str, names: tuple[str, ...] | list[str]) -> str:
    """A ' (did you mean ...?)' remark for the name closest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _finite(value: object) -> bool:
    """Whether it is a finite number; an item of a list may be anything."""
    return isinstance(value, int | float) and math.isfinite(value)


def at_least(name: str, value: float | None, low: float) -> Iterator[Problem]:
    """Yield a problem unless ``value`` is finite and not below ``low``; whether it may be None its type says."""
    if value is not None and not (_finite(value) and value >= low):
        yield name, f"must be a finite number of at least {low:g}"


def above_zero(name: str, value: float | None) -> Iterator[Problem]:
    """Yield a problem unless ``value`` is finite and positive; whether it may be None its type says."""
    if value is not None and not (_finite(value) and value > 0):
        yield name, "must be a finite number above 0"


def within(name: str, value: float, interval: str) -> Iterator[Problem]:
    """Yield a problem unless ``value`` lies in an interval, such as ``(0, 1]``."""
    low, high = map(float, interval[1:-1].split(","))
    inside = _finite(value) and low <= value <= high
    if not inside or (value == low and interval[0] == "(") or (value == high and interval[-1] == ")"):
        yield name, f"must lie in {interval}"


def refusals(node: Any, checks: Sequence[str] = ("check",)) -> list[str]:
    """A line for every value in a dataclass, and in what it holds, that a method of ``checks`` finds wrong."""
    return [f"{key}={redacted(repr(value))}: {what}" for key, value, what in _problems(node, "", checks)]


def accept(options: Any) -> None:
    """Refuse options that were made by hand with values that no command line would get past.

    Raises:
        ValueError: a line for every bad value.
    """
    if refused := refusals(options):
        raise ValueError("\n".join(refused))


def _problems(node: Any, path: str, checks: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """Walk dataclasses, lists and dicts; yield (full key, value, what is wrong) as fields and methods say."""
    if dataclasses.is_dataclass(node):
        children = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
        for name in vars(node).keys() - children.keys():  # a '+key=value' on the command line gets this far
            yield _join(path, name), getattr(node, name), f"no such key{nearest(name, list(children))}"
        kind: type = type(node)
        for key, (check, bounds) in field_checks(kind).items():
            for _, what in check(key, children[key], *bounds):
                yield _join(path, key), children[key], what
        for name, what in (problem for method in checks for problem in getattr(node, method, lambda: ())()):
            yield _join(path, name), _value_at(node, name), what
    elif isinstance(node, list):
        children = {str(index): item for index, item in enumerate(node)}
    elif isinstance(node, dict):
        children = {str(key): item for key, item in node.items()}
    else:
        return
    for name, child in children.items():
        yield from _problems(child, _join(path, name), checks)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value_at(node: Any, name: str) -> Any:
    for part in name.split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    return node


ADDED, CHECK = "added", "check"
"""Keys of a field's metadata: the option is younger than runs that are to go on; what its values are checked with."""


def checked(default: Any, check: Check, *bounds: Any) -> Any:
    """A field of options whose values ``check(name, value, *bounds)`` finds right or wrong, in front of ``check()``.

    Args:
        default: of the field; a list, dict or dataclass as a function without arguments that makes it
        check: such as :func:`at_least`
        bounds: what it needs to know besides name and value
    """
    return _field(default, {CHECK: (check, bounds)})


def added(default: Any, check: Check | None = None, *bounds: Any) -> Any:
    """The same for an option that runs begun by earlier versions do not know; ``check`` may be left out.

    Its default is what those versions did. At that default it is not part of a run's identity, so their signatures stay
    as they are.
    """
    return _field(default, {ADDED: True} | ({} if check is None else {CHECK: (check, bounds)}))


@cache
def field_checks(kind: type) -> dict[str, tuple[Check, tuple[Any, ...]]]:
    """The checks of a dataclass's fields, and what bounds these; a new default keeps the check."""
    found: dict[str, tuple[Check, tuple[Any, ...]]] = {}
    for owner in reversed([owner for owner in kind.__mro__ if dataclasses.is_dataclass(owner)]):
        found |= {field.name: field.metadata[CHECK] for field in dataclasses.fields(owner) if CHECK in field.metadata}
    return found


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    kind = "default_factory" if callable(default) else "default"
    return dataclasses.field(**{kind: default}, metadata=metadata)


def identity_fields(node: Any) -> Any:
    """A configuration as plain dicts, lists and values, without :func:`added` options that stand at their default."""
    if dataclasses.is_dataclass(node):
        values = ((field, getattr(node, field.name)) for field in dataclasses.fields(node))
        return {
            field.name: identity_fields(value)
            for field, value in values
            if not (ADDED in field.metadata and value == _default(field))
        }
    if isinstance(node, dict):
        return {key: identity_fields(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [identity_fields(item) for item in node]
    return node


def before_additions(node: Any, path: str = "") -> tuple[Any, list[str]]:
    """A copy of a configuration with every :func:`added` option at its default, and the overrides that make it so."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        values: dict[str, Any] = {}
        overrides = []
        for field in dataclasses.fields(node):
            key, value = f"{path}.{field.name}".lstrip("."), getattr(node, field.name)
            if ADDED in field.metadata and value != (default := _default(field)):
                values[field.name] = default
                overrides += _as_before(key, value, default)
            else:
                values[field.name], inside = before_additions(value, key)
                overrides += inside
        return dataclasses.replace(node, **values), overrides
    if isinstance(node, list):
        items = [before_additions(item, f"{path}.{index}") for index, item in enumerate(node)]
        return [item for item, _ in items], [override for _, inside in items for override in inside]
    return node, []


def _as_before(key: str, value: Any, default: Any) -> list[str]:
    """Overrides that give a value, or what of a dataclass differs, its default."""
    if not dataclasses.is_dataclass(default):
        return [f"{key}={as_override(default)}"]
    pairs = ((f"{key}.{f.name}", getattr(value, f.name), getattr(default, f.name)) for f in dataclasses.fields(default))
    return [
        override
        for name, its, its_default in pairs
        if its != its_default
        for override in _as_before(name, its, its_default)
    ]


def additions(kind: type) -> dict[str, Any]:
    """The :func:`added` options of a dataclass, and what versions did that do not know them.

    One that is a dataclass is there as a whole, as a dict, and with each of its fields.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if ADDED in field.metadata:
            default = _default(field)
            found[field.name] = _plain(default)
            if dataclasses.is_dataclass(default):
                found |= {f"{field.name}.{name}": value for name, value in found[field.name].items()}
    return found


def with_additions(stored: Any, kind: Any) -> Any:
    """What was stored of a dataclass, with each :func:`added` option that its version did not know as it behaved then.

    Args:
        stored: dicts, lists and values
        kind: the dataclass; or a list of one, or one that may be missing
    """
    kinds = [k for k in (kind, *get_args(kind)) if isinstance(k, type) and dataclasses.is_dataclass(k)]
    if not kinds:
        return stored
    if isinstance(stored, list):
        return [with_additions(item, kinds[0]) for item in stored]
    if not isinstance(stored, dict):
        return stored
    hints = _hints(kinds[0])
    known = {name: with_additions(value, hints.get(name)) for name, value in stored.items()}
    return {name: value for name, value in additions(kinds[0]).items() if "." not in name} | known


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def as_override(value: Any) -> str:
    """A value as it stands behind ``key=`` on a command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=dataclasses.asdict)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
