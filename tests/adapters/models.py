"""Tiny models for the adapter tests."""

import timm
import torch
from torch import nn


def tiny_vit(seed: int = 0, **changes: object) -> nn.Module:
    """A timm ViT of width 64 with two blocks, random weights."""
    torch.manual_seed(seed)
    settings = {"img_size": 32, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 4, "num_classes": 0}
    return timm.models.vision_transformer.VisionTransformer(**{**settings, **changes})


def train_a_little(model: nn.Module, steps: int = 3) -> None:
    """A few large optimizer steps on whatever trains."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        loss = model.forward_features(torch.randn(2, 3, 32, 32, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
