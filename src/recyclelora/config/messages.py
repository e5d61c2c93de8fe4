"""What Hydra and OmegaConf say about a mistake, in the words of this project: the key that was meant, what to write."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

from recyclelora.config.run import Config, option_kinds
from recyclelora.system.checks import nearest

NEEDED = {
    "evaluate": "run=<run directory>",
    "predict": "run=<run directory> input=<folder or images>",
    "export": "run=<run directory> format=timm",
    "analyze": "run=<run directory>",
    "report": "sweep=<sweep directory>",
    "repeat": "run=<run directory>",
    "import_checkpoint": "checkpoint=<file>",
}
"""What a command cannot do without."""

PARTS = {
    "sampler": "hydra/sweeper/sampler",
    "pruner": "hydra/sweeper/pruner",
    "sweeper": "hydra/sweeper",
    "launcher": "hydra/launcher",
}
"""Parts of a sweep, which are chosen with a slash."""

GROUPS = ("adapter/split", "data/augment", "data/classes", "data/protocol", *PARTS.values())
"""Groups inside others, which are chosen with a slash."""

A_NAME = "a group takes the name of one of its options"


def in_words(lines: list[str], command: str = "train", more_keys: tuple[str, ...] = ()) -> str:
    """One line for a mistake.

    Args:
        lines: of an exception and its causes, as Hydra spreads them
        command: what was called
        more_keys: that may be meant besides the configuration's own
    """
    text = "; ".join(line.rstrip(".:") for line in lines if not line.startswith("full_key: ") or len(lines) < 3)
    keys = (*known_keys(), *more_keys)
    for pattern, words in _PATTERNS.items():
        if found := re.search(pattern, text):
            if isinstance(words, str):
                return found.expand(words)
            return words(found, {"text": text, "command": command, "keys": keys})
    return text


def known_keys() -> list[str]:
    """Every key of a training configuration, dotted."""
    parts = (key for group, kind in _kinds() for key in _keys(kind, f"{group}."))
    return list(dict.fromkeys([*_keys(Config, ""), *parts]))


def _kinds() -> Iterator[tuple[str, type]]:
    """The options of adapters and decoders, each with its group."""
    return ((group, kind) for group in ("adapter", "decoder") for kind in option_kinds()[group].values())


def _keys(schema: type, prefix: str) -> Iterator[str]:
    for key, _ in _below(schema, prefix):
        yield key


def _below(schema: type, prefix: str) -> Iterator[tuple[str, type | None]]:
    """The keys below ``prefix``, each with the dataclass that stands there, if one does."""
    for name, hint in get_type_hints(schema).items():
        inner = next((k for k in (hint, *get_args(hint)) if isinstance(k, type) and dataclasses.is_dataclass(k)), None)
        yield prefix + name, inner
        if inner is not None:
            yield from _below(inner, f"{prefix}{name}.")


Words = Callable[["re.Match[str]", Mapping[str, Any]], str]


def _no_option(found: re.Match[str], about: Mapping[str, Any]) -> str:
    group, names = found[2], [name.strip() for name in found[3].split(";") if name.strip()]
    wanted = found[1].rsplit("/", 1)[-1]
    return f"{group}={wanted}: no such option{nearest(wanted, names)}; available: {', '.join(names)}"


def _no_key(found: re.Match[str], about: Mapping[str, Any]) -> str:
    """An unknown key: those that end like it are meant most often, then those that begin like it."""
    key, schema = found[1], found[4]
    if schema in ("OptunaSweeperConf", "BasicSweeperConf"):
        return f"{key}: only the default sweeper has it: leave hydra/sweeper= out"
    if any(known.startswith(f"{key}.") for known in about["keys"]):
        return f"{key}: {A_NAME}, {key}=<name>, and its values one by one"
    own, end = (about["keys"], key) if schema == "Config" else _siblings(key, found[3], schema)
    meant = [known for known in own if known.endswith(f".{end}")]
    if key in PARTS:
        meant = [PARTS[key]]
    if not meant:
        hint = re.search(r"Did you mean: '(\w+)'", about["text"])  # of the very schema that is asked
        if hint:
            return f"{key}: no such key (did you mean {hint[1]}?)"
        meant = [known for known in own if known.startswith(f"{key}_")]
    if not meant:
        return f"{key}: no such key"
    return f"{key}: no such key; did you mean {' or '.join(meant[:4])}?"


def _siblings(key: str, unknown: str, schema: str) -> tuple[list[str], str]:
    """All keys where ``unknown``, a part of ``key``, is not one, since a ``schema`` stands there; and the key's end."""
    parts = key.split(".")
    above = ".".join(parts[: parts.index(unknown)])
    inner = (place for group, kind in _kinds() for place in _below(kind, f"{group}."))
    places = [*_below(Config, ""), *_kinds(), *inner]
    kind = next((kind for place, kind in places if place == above and kind and kind.__name__ == schema), None)
    return list(_keys(kind, f"{above}.")) if kind else [], parts[-1]


def _no_group(found: re.Match[str], about: Mapping[str, Any]) -> str:
    """A group of training options at a command that has none, or a misspelt one below another."""
    group, command = found[1], about["command"]
    if command in NEEDED:
        return f"{group}: {command} does not choose it; it takes {NEEDED[command]}"
    return f"{group}: no such group{nearest(group, GROUPS)}"


def _no_header(found: re.Match[str], about: Mapping[str, Any]) -> str:
    return f"{found[1]}.yaml: its first line must be '# @package _global_', else all of it lands below {found[2]}"


def _no_assignment(found: re.Match[str], about: Mapping[str, Any]) -> str:
    word, why = found[1], found[2]
    if "=" in word:
        key, value = word.split("=", 1)
        texts = '["...",...]' if value.startswith("[") else '"..."'
        return f"{word}: cannot be read: {why}; quote special characters twice: '{key}={texts}'"
    needed = NEEDED.get(about["command"])
    several = "; several images are one list: input=[a.png,b.png]" if about["command"] == "predict" else ""
    return f"{word}: write key=value" + (f", here {needed}" if needed else "") + several


def _not_a_number(found: re.Match[str], about: Mapping[str, Any]) -> str:
    key, value, kind = found[1], found[2], found[4]
    minutes = ""
    if key.endswith("timeout_min") and (time := re.fullmatch(r"[\"']?(?:(\d+)-)?(\d+):(\d+)(?::\d+)?[\"']?", value)):
        minutes = f"; it is in minutes: {key}={(int(time[1] or 0) * 24 + int(time[2])) * 60 + int(time[3])}"
    what = {"Integer": "a whole number (Integer)", "Float": "a number", "Boolean": "true or false"}
    return f"{key}={value}: must be {what.get(kind, kind)}{minutes}"


def _no_text(found: re.Match[str], about: Mapping[str, Any]) -> str:
    key, value = found[1], found[2]
    listed = re.fullmatch(r"\[(.*)\]", value)
    quoted = f": {key}=\"'{listed[1].replace(' ', '')}'\"" if listed else ""
    return f"{key}={value}: must be a text{', quoted where it has commas' if listed else ''}{quoted}"


def _has_keys(found: re.Match[str], about: Mapping[str, Any]) -> str:
    own = [key for key in about["keys"] if key.startswith(f"{found[1]}.")]
    return f"{found[1]}={found[2]}: has keys of its own: {', '.join(own[:3]) or found[1] + '.<key>'}, ..."


def _no_name(found: re.Match[str], about: Mapping[str, Any]) -> str:
    kinds = {"NoneType": "null", "int": "a number", "float": "a number", "bool": "true or false"}
    return f"{A_NAME}, as in adapter=lora, and not {kinds.get(found[1], found[1])}"


_PATTERNS: dict[str, str | Words] = {
    r"Could not find '([^']+)'; Available options in '([^']+)'(.*?)(?:; Config search path|$)": _no_option,
    r"Could not override '(\w+(\.\w+)*)'; Key '(\w+)' not in '(\w+)'": _no_key,
    r"Could not override '([\w/]+)'(?:; Key '[^']*/[^']*' not in|\. No match in the defaults list)": _no_group,
    r"Could not override '(\w+(\.\w+)*)'; Key '\w+' is not in struct": (  # of a mapping of the user's own
        r"\1: there is no such entry; a new one is written with a plus: +\1=..."
    ),
    r"In '((\w+)/[^']+)': ConfigKeyError raised while composing config; Key '\2' not in": _no_header,
    r"Error parsing override '(.*?)'; (.*?)(?:; See https|$)": _no_assignment,
    r"Error when parsing index: \d+, string: (.*?) out of \[.*?\]; (.*?)(?:; See https|$)": _no_assignment,
    r"Error merging override ([^=]+)=(.*?); (Value .*) could not be converted to (\w+)": _not_a_number,
    r"Error merging override ([^=]+)=(.*?); Cannot convert '\w+' to string": _no_text,
    r"Error merging override ([^=]+)=(.*?); Invalid value assigned: \w+ is not a ListConfig": (
        r"\1=\2: must be a list: \1=[\2]"
    ),
    r"Error merging override ([^=]+)=(.*?); Invalid \w+ assigned: .* is not a subclass of": _has_keys,
    r"Error merging override ([^=]+)=(.*?); .*is not Optional": r"\1=\2: must have a value",
    r"Error merging override ([^=]+)=(.*?); Cannot set '[^']+' because '([^']+)' is None": (
        r"\1=\2: \3 is null here; leave it out, or choose options that have it"
    ),
    r"Ambiguous value for argument '([^=]+)=(.*?)'": (
        r"""\1=\2: a list is \1=[\2], a text \1="'\2'", and a sweep over them needs -m"""
    ),
    r"Could not load '([\w/]+)/([^/']+)'": r"\1=\2: no such option",
    r"Config group override must be a string or a list\. Got (\w+)": _no_name,
    r"Error merging override ~([\w.]+); .* does not support deletion": r"~\1: keys are not deleted; write \1=null",
    r"In '(sweeps/[^']+)': Invalid Defaults List override '/hydra/sweeper": (
        r"\1.yaml is for the default sweeper: leave hydra/sweeper= out"
    ),
    r"hydra\.mode changed during config composition": (
        "hydra.mode: cannot be set in this file; write -m on the command line, or set it in a primary config"
    ),
}
"""Of a joined message -> how it is told: a template of its groups, or what needs to know more."""
