"""Which runs are seeds of one configuration, and a short name that tells configurations apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Run = TypeVar("Run")

ABSENT = object()
CONTENT = ("backbone.weights", "data.digest", "init_from.sha256")
"""Hashes of what the configuration names: said only where nothing else tells two configurations apart."""


@dataclass(frozen=True)
class Group(Generic[Run]):
    """Runs that differ by the seed only."""

    name: str
    runs: list[Run]
    config: dict[str, Any] = field(repr=False)


def grouped(runs: Iterable[Run], config_of: Callable[[Run], dict[str, Any]]) -> list[Group[Run]]:
    """Runs by their configuration without the seed, in the order of their first."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(json.dumps(config_of(run), sort_keys=True, default=str), []).append(run)
    configs = [config_of(found[0]) for found in members.values()]
    named = zip(group_names(configs), members.values(), configs, strict=True)
    return [Group(name, found, config) for name, found, config in named]


def meant(wanted: str, names: Sequence[str]) -> list[str]:
    """The names that may be meant: this very one, else those that have it as whole words, else as a part."""
    words = re.compile(rf"(?<![\w.]){re.escape(wanted)}(?![\w.])")  # lora is no word of adapter=recyclelora
    found = ([n for n in names if fits(n)] for fits in (wanted.__eq__, words.search, lambda n: wanted in n))
    return next((hits for hits in found if hits), [])


def varying(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Keys that have not the same value everywhere, in the order of the configurations."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({_comparable(config, key) for config in configs}) > 1]


def group_names(configs: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each configuration out of what varies, such as ``adapter=lora`` or ``main.rank=32, sub.rank=4``.

    What follows from the ``name`` of an option (everything that differs between ``adapter=lora`` and
    ``adapter=soma``) is not said again.

    Args:
        configs: different ones, as ``section.key`` -> value
    """
    keys = sorted((k for k in varying(configs) if k not in CONTENT), key=lambda k: not k.endswith(".name"))
    names = _names(keys, configs)
    return names if len(set(names)) == len(configs) else _names(varying(configs), configs)


def point_names(points: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[str]:
    """The name of each configuration's point, with what varies where a point has several configurations."""
    names = list(points)
    for point in set(points):
        places = [index for index, name in enumerate(points) if name == point]
        if len(places) > 1:
            plain = group_names([configs[index] for index in places])
            for index, name in zip(places, plain, strict=True):
                names[index] = f"{point}, {name}"
    return names


def _names(keys: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[str]:
    shown = {key: telling(key, keys, configs) for key in keys}
    labels = short_keys([key for key in keys if any(shown[key])])
    names = []
    for index, config in enumerate(configs):
        parts = [f"{labels[k]}={value_text(config[k])}" for k in keys if shown[k][index] and k in config]
        names.append(", ".join(parts) or f"adapter={config.get('adapter.name', 'unknown')}")
    return names


def telling(key: str, keys: Sequence[str], configs: Sequence[dict[str, Any]]) -> list[bool]:
    """For each configuration whether a key tells it from others that have the same option names above that key."""
    above = [name for name in keys if name != key and name.endswith(".name") and key.startswith(name[:-4])]
    classes: dict[tuple[str, ...], set[str]] = {}
    for config in configs:
        classes.setdefault(_class(config, above), set()).add(_comparable(config, key))
    return [len(classes[_class(config, above)]) > 1 for config in configs]


def _class(config: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(_comparable(config, name) for name in names)


def short_key(key: str) -> str:
    """``adapter`` for ``adapter.name``, ``main.rank`` for ``adapter.main.rank``, ``lr`` for ``optimizer.lr``.

    A decoder's keys stay whole: a mere ``lr_mult`` is the adapter's.
    """
    section, _, rest = key.partition(".")
    if key.endswith(".name") and not key[:-5].rsplit(".", 1)[-1].isdigit():
        return key[:-5].rsplit(".", 1)[-1]
    return key if section == "decoder" else rest or section


def wrapped(name: str, width: int = 42) -> str:
    """A name on several lines, broken at its commas."""
    lines = [""]
    for part in name.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) > width and lines[-1]:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def value_text(value: Any) -> str:
    """A value as one would type it; numbers with four digits."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return text[:8] if is_hash else text if len(text) <= 40 else text[:37] + "..."


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Short keys; the whole key where two would be equal."""
    short = {key: short_key(key) for key in keys}
    texts = list(short.values())
    return {key: text if texts.count(text) == 1 else key for key, text in short.items()}


def _comparable(config: dict[str, Any], key: str) -> str:
    value = config.get(key, ABSENT)
    return "" if value is ABSENT else json.dumps(value, sort_keys=True, default=str)
