"""Adapt vision foundation models with RecycleLoRA and its rivals; measure how they segment streets never seen."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recyclelora.commands.api.calls import compare as compare
    from recyclelora.evaluation.load import load as load

CALLS = dict.fromkeys(("compare", "runs", "sweep", "train"), "commands.api.calls") | {"load": "evaluation.load"}
"""The Python API, and where it is: what brings torch or Hydra is imported only when it is used."""
ROOMS = ("runs", "sweep")
"""Calls that have the name of a package inside this one, which is therefore called itself."""

__all__ = ["compare", "load", "runs", "sweep", "train"]

# ``python -m recyclelora.train`` and its like: module names of the first release, which snapshots of sweeps start too
__path__.append(str(Path(__file__).parent / "commands/doors"))


def __getattr__(name: str) -> Any:
    """Import a call of the API when it is used."""
    if name in ROOMS:
        return import_module(f"recyclelora.{name}")
    if name in CALLS:
        return _call(name)
    raise AttributeError(f"module 'recyclelora' has no attribute {name!r}")


def _call(name: str) -> Any:
    return getattr(import_module(f"recyclelora.{CALLS[name]}"), name)


class _Callable(ModuleType):
    """A module inside this package that has the name of a call: ``recyclelora.runs("outputs")``."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the call of its name does."""
        return _call(self.__name__.rpartition(".")[2])(*args, **options)


class _Package(ModuleType):
    """This package: Python's import sets each module inside it as an attribute."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CALLS and isinstance(value, ModuleType):
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
