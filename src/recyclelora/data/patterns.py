"""Patterns over the files of a user's own data: ``*`` and ``?`` within a name, ``**`` across folders, ``{png,jpg}``."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\{[^}]*\}")
CAPTURES = {"**/": r"((?:[^/]+/)*)", "**": r"(.*)", "*": r"([^/]*)", "?": r"([^/])"}


SUFFIX = re.compile(r"\.[^./*?]*$")
"""What stands behind the last dot of a pattern, where it has no wildcard."""


def translated(pattern: str, telling: Collection[str] = ()) -> str:
    """A pattern as a regular expression with one group for each wildcard.

    Alternatives in braces have a group where they are among the ``telling`` ones and not in the suffix, see
    :func:`shared_braces`. The suffix matches in upper and lower case.
    """
    suffix = SUFFIX.search(pattern)
    if suffix is None:
        return _translated(pattern, telling)
    return f"{_translated(pattern[: suffix.start()], telling)}(?i:{_translated(suffix.group(), ())})"


def shared_braces(images: str, masks: str | None) -> frozenset[str]:
    """Alternatives in braces that both patterns have before their suffixes: they tell samples apart as wildcards do.

    So ``{left,right}/*.png`` and ``{left,right}_masks/*.png`` are paired by the side, too.
    """
    if masks is None:
        return frozenset(_braces(images))
    return frozenset(_braces(images)) if _braces(images) == _braces(masks) else frozenset()


def _braces(pattern: str) -> list[str]:
    """The alternatives before the suffix, in order."""
    return [text for text in WILDCARD.findall(SUFFIX.sub("", pattern)) if text.startswith("{")]


def odd_braces(pattern: str) -> str | None:
    """What cannot be meant by the braces of a pattern; None where nothing is wrong."""
    rest = WILDCARD.sub(lambda found: "" if found.group().startswith("{") else found.group(), pattern)
    inner = [text for text in WILDCARD.findall(pattern) if text.startswith("{")]
    if "{" in rest or "}" in rest or any("{" in text[1:] for text in inner):
        return "has a brace without its other one, or braces in braces: write {jpg,png}"
    if any("." in text for text in inner):
        return "has a dot in braces: write *.{jpg,png}"
    if any(sign in text for text in inner for sign in "*?"):
        return "has a wildcard in braces, which hold plain alternatives: write a split for each"
    return None


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it lies in, has a name that begins with a dot; of a pattern: can match such."""
    return path.startswith(".") or "/." in path


def printable(path: Path) -> str:
    """A path as text for people and records: bytes of a name that are no UTF-8 are shown as \\xNN."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")


def _translated(pattern: str, telling: Collection[str]) -> str:
    parts, end = [], 0
    for wildcard in WILDCARD.finditer(pattern):
        parts.append(re.escape(pattern[end : wildcard.start()]))
        text = wildcard.group()
        alternatives = "|".join(re.escape(word) for word in text[1:-1].split(","))
        parts.append(CAPTURES.get(text) or (f"({alternatives})" if text in telling else f"(?:{alternatives})"))
        end = wildcard.end()
    return "".join([*parts, re.escape(pattern[end:])])


def wildcards(pattern: str) -> list[str]:
    """The wildcards of a pattern in order; image and mask patterns must have the same."""
    return [text for text in WILDCARD.findall(pattern) if not text.startswith("{")]


def filled(pattern: str, key: tuple[str, ...], telling: Collection[str] = ()) -> str:
    """A pattern with its wildcards, and the braces that are ``telling``, replaced by what they should match."""
    values, suffix = iter(key), SUFFIX.search(pattern)
    end = suffix.start() if suffix else len(pattern)

    def value(found: re.Match[str]) -> str:
        told = found.group()[0] != "{" or (found.group() in telling and found.start() < end)
        return next(values) if told else found.group()

    return WILDCARD.sub(value, pattern)
