"""The library timm, imported without what it drags along; all that is used of it is imported from here."""

from __future__ import annotations

from recyclelora.system.imports import left_out

# Where wandb is installed, timm.utils imports it for a table of its own training script: over a quarter of the imports
# before the first step. Whoever wants wandb later still gets it.
with left_out("wandb"):
    import timm
    from timm.layers.norm import LayerNorm2d
    from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
    from timm.models import save_for_hf
    from timm.models.vision_transformer import Block, VisionTransformer

__all__ = [
    "Block", "LayerNorm2d", "VisionTransformer", "resample_abs_pos_embed", "resample_abs_pos_embed_nhwc", "save_for_hf",
    "timm",
]  # fmt: skip
