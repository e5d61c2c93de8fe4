"""Patterns over the files of a user's own data: ``*`` and ``?`` within a name, ``**`` across folders, ``{png,jpg}``."""

from __future__ import annotations

import re
from pathlib import Path

WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\{[^}]*\}")
CAPTURES = {"**/": r"((?:[^/]+/)*)", "**": r"(.*)", "*": r"([^/]*)", "?": r"([^/])"}


SUFFIX = re.compile(r"\.[^./*?]*$")
"""What stands behind the last dot of a pattern, where it has no wildcard."""


def translated(pattern: str) -> str:
    """A pattern as a regular expression with one group for each wildcard; alternatives in braces are no wildcard.

    The suffix matches in upper and lower case.
    """
    suffix = SUFFIX.search(pattern)
    if suffix is None:
        return _translated(pattern)
    return f"{_translated(pattern[: suffix.start()])}(?i:{_translated(suffix.group())})"


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it lies in, has a name that begins with a dot; of a pattern: can match such."""
    return path.startswith(".") or "/." in path


def printable(path: Path) -> str:
    """A path as text for people and records: bytes of a name that are no UTF-8 are shown as \\xNN."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="backslashreplace")


def _translated(pattern: str) -> str:
    parts, end = [], 0
    for wildcard in WILDCARD.finditer(pattern):
        parts.append(re.escape(pattern[end : wildcard.start()]))
        text = wildcard.group()
        alternatives = "|".join(re.escape(word) for word in text[1:-1].split(","))
        parts.append(CAPTURES.get(text) or f"(?:{alternatives})")
        end = wildcard.end()
    return "".join([*parts, re.escape(pattern[end:])])


def wildcards(pattern: str) -> list[str]:
    """The wildcards of a pattern in order; image and mask patterns must have the same."""
    return [text for text in WILDCARD.findall(pattern) if not text.startswith("{")]


def filled(pattern: str, key: tuple[str, ...]) -> str:
    """A pattern with its wildcards replaced by what they should match."""
    values = iter(key)
    return WILDCARD.sub(lambda wildcard: wildcard.group() if wildcard.group()[0] == "{" else next(values), pattern)
