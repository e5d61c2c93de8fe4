"""Records: the project's own JSON files, each with a schema, since people edit them and disks go bad."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NewType, NotRequired, TypeVar, Union, get_args, get_origin, get_type_hints
from typing import is_typeddict as is_schema

from recyclelora.system.errors import UserError
from recyclelora.system.storage import read_json

Time = NewType("Time", str)
"""An ISO time."""
T = TypeVar("T")
_PLAIN: dict[Any, tuple[str, Any]] = {
    str: ("a text", str), int: ("a whole number", int), float: ("a number", (int, float)),
    bool: ("true or false", bool), NoneType: ("null", NoneType), Time: ("an ISO time", str),
}  # fmt: skip


def read_record(path: Path, schema: type[T]) -> T:
    """Read a JSON file and check it.

    Args:
        path: of the file
        schema: a TypedDict or dataclass; fields that it does not know are a later version's, and left alone

    Raises:
        UserError: it cannot be read, or a field is missing or of another type; names file and field.
    """
    value = read_json(path)
    for misfit in misfits(value, schema):
        raise UserError(f"{path}: {misfit}")
    return value  # type: ignore[no-any-return]


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object of whatever fields.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: its content is {_brief(value)}, not an object")
    return value


def misfits(value: Any, kind: Any, name: str = "") -> Iterator[str]:
    """What of a value is not as its type says, in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if is_schema(kind) or dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            yield f"{name or 'its content'} is {_brief(value)}, not an object"
            return
        for key, field in _fields(kind).items():
            full, optional = f"{name}.{key}" if name else key, get_origin(field) is NotRequired
            if key in value:
                yield from misfits(value[key], get_args(field)[0] if optional else field, full)
            elif not optional and (is_schema(kind) or not hasattr(kind, key)):  # a dataclass may have a default
                yield f"{full} is missing"
    elif origin in (Union, UnionType):
        if all(next(misfits(value, arm, name), None) for arm in inner):
            yield next(misfits(value, inner[0], name))
    elif origin is Literal:
        if value not in inner:
            yield f"{name} is {_brief(value)}, not {' or '.join(map(str, inner))}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{name} is {_brief(value)}, not a list"
            return
        for index, item in enumerate(value):
            yield from misfits(item, inner[0], f"{name}[{index}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{name} is {_brief(value)}, not an object"
            return
        for key, item in value.items():
            yield from misfits(item, inner[1], f"{name}.{key}")
    elif not _fits(value, kind):
        yield f"{name} is {_brief(value)}, not {_PLAIN[kind][0]}"


_fields = functools.cache(functools.partial(get_type_hints, include_extras=True))


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) and kind is not bool:
        return False
    if not isinstance(value, _PLAIN[kind][1]):
        return False
    if kind is float:
        return math.isfinite(value)
    if kind is Time:
        try:
            datetime.datetime.fromisoformat(value)
        except ValueError:
            return False
    return True


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
