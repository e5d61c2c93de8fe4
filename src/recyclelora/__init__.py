"""Adapt vision foundation models with RecycleLoRA and its rivals; measure how they segment streets never seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recyclelora.evaluation.load import load as load

__all__ = ["load"]

# ``python -m recyclelora.train`` and its like: module names of the first release, which snapshots of sweeps start too
__path__.append(str(Path(__file__).parent / "commands/doors"))


def __getattr__(name: str) -> Any:
    """Import :func:`recyclelora.evaluation.load.load` only when it is used: it brings torch."""
    if name == "load":
        from recyclelora.evaluation.load import load

        return load
    raise AttributeError(f"module 'recyclelora' has no attribute {name!r}")
