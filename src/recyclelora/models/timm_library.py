"""The library timm, imported without what it drags along."""

from __future__ import annotations

from recyclelora.system.extras import left_out

# Where wandb is installed, timm.utils imports it for a table of its own training script: over a quarter of the imports
# before the first step. Whoever wants wandb later still gets it.
with left_out("wandb"):
    import timm

__all__ = ["timm"]
