"""Patterns over the files of a user's own data: ``*`` and ``?`` within a name, ``**`` across folders, ``{png,jpg}``."""

from __future__ import annotations

import re

WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|\{[^}]*\}")
CAPTURES = {"**/": r"((?:[^/]+/)*)", "**": r"(.*)", "*": r"([^/]*)", "?": r"([^/])"}


def translated(pattern: str) -> str:
    """A pattern as a regular expression with one group for each wildcard; alternatives in braces are no wildcard."""
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
