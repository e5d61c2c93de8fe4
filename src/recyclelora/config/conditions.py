"""Conditions on what a trial varies, as options hold them: ``key=value``, ``key=value|value``, several with commas."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


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


def value_of(config: DictConfig, key: str) -> Any:
    """What a configuration has under a key, of a group its option's name; None where it has nothing."""
    try:
        found = OmegaConf.select(config, key, default=None)
        return found.get("name") if isinstance(found, DictConfig) else found
    except OmegaConfBaseException:  # what it refers to is not there
        return None
