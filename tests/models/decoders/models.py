"""Every decoder at its defaults and in a size for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recyclelora.models.decoders.config import DECODERS
from recyclelora.models.decoders.loss_options import MaskLossConfig

CHANNELS, CLASSES, PATCH, IGNORED = 32, 4, 16, 255
LOSS = MaskLossConfig(num_points=256)

SMALL_OPTIONS = {
    "linear": {},
    "segformer": {"width": 32},
    "fpn": {"width": 32, "head_width": 32, "dropout": 0.0},
    "upernet": {"width": 32},
    "dpt": {"width": 32},
    "eomt": {"width": 32, "num_queries": 8, "num_heads": 2, "num_blocks": 2, "loss": LOSS},
    "mask2former": {
        "width": 32, "num_queries": 8, "num_heads": 2, "encoder_layers": 1, "encoder_width": 64, "decoder_layers": 3,
        "decoder_width": 64, "loss": LOSS,
    },
}  # fmt: skip


def small(name: str, *lent: object, **options: object) -> nn.Module:
    """A decoder of four levels of 32 channels and 4 classes, initialised from a seed."""
    torch.manual_seed(0)
    return DECODERS[name](**(SMALL_OPTIONS[name] | options)).build([CHANNELS] * 4, CLASSES, *lent)


def features(batch: int = 2, size: tuple[int, int] = (4, 6)) -> list[Tensor]:
    """Four levels at the stride of a patch."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, CHANNELS, *size, generator=generator) for _ in range(4)]


def labels(batch: int = 2, size: tuple[int, int] = (4, 6)) -> Tensor:
    """One class for every patch, the first of each image ignored."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, CLASSES, (batch, *size), generator=generator)
    ids[:, 0, 0] = IGNORED
    return ids.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)


def total_loss(decoder: nn.Module, batch: list[Tensor], ids: Tensor) -> Tensor:
    """The sum of a decoder's losses."""
    return torch.stack(list(decoder.losses(batch, ids, IGNORED).values())).sum()
