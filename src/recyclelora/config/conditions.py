"""Conditions on what a trial varies, as options hold them: ``key=value``, ``key=value|value``, several with commas."""

from __future__ import annotations


def read_condition(text: str) -> dict[str, list[str]]:
    """Keys and the values of which each must have one.

    >>> read_condition("backbone=dinov2_large|dinov2_giant, decoder=dpt")
    {'backbone': ['dinov2_large', 'dinov2_giant'], 'decoder': ['dpt']}

    Raises:
        ValueError: it is written otherwise.
    """
    found: dict[str, list[str]] = {}
    for part in text.split(","):
        key, _, values = (piece.strip() for piece in part.partition("="))
        if not key or not values:
            raise ValueError("write key=value or key=value|value")
        found[key] = [value.strip() for value in values.split("|")]
    return found
