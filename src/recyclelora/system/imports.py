"""Imports of large libraries: quickly, and without what they drag along."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import inside without looking for garbage, in this process's thread and all others.

    What modules define stays: looking through it again and again takes a third of the time that torch and timm take to
    be imported. Where something was imported, the collector never looks at what there is at the end either.
    """
    collecting, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
            atexit.register(_unfreeze)
        if collecting:
            gc.enable()


def _unfreeze() -> None:
    """Triton prints what is left of it when Python ends, which is everything if the collector may not look at it."""
    if "triton" in sys.modules:
        gc.unfreeze()


@contextmanager
def left_out(*packages: str) -> Iterator[None]:
    """What is imported inside finds these packages not installed, unless they have been imported before."""
    absent = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in absent:
            sys.modules.pop(package, None)
