"""Checks of values that several options share."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator

Problem = tuple[str, str]
"""A field's name and what is wrong with its value."""


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> Iterator[Problem]:
    """Yield a problem with the nearest allowed name when ``value`` is not one of ``allowed``."""
    if value not in allowed:
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


def at_least(name: str, value: float, low: float) -> Iterator[Problem]:
    """Yield a problem unless ``value`` is finite and not below ``low``."""
    if not (_finite(value) and value >= low):
        yield name, f"must be a finite number of at least {low:g}"


def above_zero(name: str, value: float) -> Iterator[Problem]:
    """Yield a problem unless ``value`` is finite and positive."""
    if not (_finite(value) and value > 0):
        yield name, "must be a finite number above 0"
