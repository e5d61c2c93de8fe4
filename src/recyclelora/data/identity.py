"""What decides how a dataset turns its files into samples, as text: part of the keys of caches."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

NOT_READING = ("items", "indices", "root", "name", "cache", "cache_dir", "masks", "title", "train_ids")
"""Fields that say which samples there are, or where they lie, but not how they are read."""


def how_it_reads(dataset: Any) -> str:
    """The id tables and reading functions of a dataset, through its wrappers."""
    fields = [f for f in dataclasses.fields(dataset) if f.name not in NOT_READING]
    if [field.name for field in fields] == ["base"]:  # a subset or a cache reads nothing itself
        return how_it_reads(dataset.base)
    return " ".join(f"{field.name}={_text(getattr(dataset, field.name))}" for field in fields)


def _text(value: Any) -> str:
    """A text that is the same in every process and differs where the value differs."""
    if isinstance(value, np.ndarray):
        return f"{value.shape}{value.dtype}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}({how_it_reads(value)})"
    if isinstance(value, Path):
        return ""
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
