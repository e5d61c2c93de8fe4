"""Adapt vision foundation models with RecycleLoRA and its rivals; measure how they segment streets never seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recyclelora.inference import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import :func:`recyclelora.inference.load` only when it is used: it brings torch."""
    if name == "load":
        from recyclelora.inference import load

        return load
    raise AttributeError(f"module 'recyclelora' has no attribute {name!r}")
