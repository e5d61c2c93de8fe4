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
        loss = model.forward_features(torch.randn(2, 3, 32, 32, generator=generator)).exp().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def stored(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of what a run stores of it: what trains, and persistent buffers."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = trained | {name for name, _ in model.named_buffers()}
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name in names}


def load(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Put back what `stored` gave."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not set(missing) & stored(model).keys()
