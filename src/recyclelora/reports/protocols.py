"""Under which test protocols runs were scored: told apart by their values, whatever they are called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def protocols(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The protocols of some ``result.json``, in order: their names, with the values in which they differ.

    A name that stands for the same values everywhere is given alone where the names tell the protocols apart.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for result in results:
        values = dict(result.get("protocol_settings") or {"name": result["protocol"]})
        name = str(values.pop("name", result["protocol"]))
        found.setdefault(json.dumps(values or name, sort_keys=True), (name, values))
    names = [name for name, _ in found.values()]
    keys = sorted({key for _, values in found.values() for key in values})
    several = [key for key in keys if len({json.dumps(values.get(key)) for _, values in found.values()}) > 1]
    return [_described(name, values, several) if names.count(name) > 1 else name for name, values in found.values()]


def _described(name: str, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    return f"{name} with {', '.join(f'{key} {json.dumps(values.get(key))}' for key in keys)}"
