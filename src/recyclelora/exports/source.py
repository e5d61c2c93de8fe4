"""What every export starts from: a run's adapted model, and the ordinary model it amounts to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters.state import merge
from recyclelora.backbones.resampling import Resampling
from recyclelora.backbones.timm import TimmBackbone, timm_arguments
from recyclelora.backbones.weights import read_weights
from recyclelora.build import locate_weights, user_errors
from recyclelora.inference import TrainedModel
from recyclelora.schemas import BackboneConfig
from recyclelora.segmenter import Segmenter


@dataclass(frozen=True)
class Source:
    """A run to export.

    Attributes:
        run: its model, in evaluation mode and float32 on the CPU.
        checkpoint: the pointer it was loaded from.
        plain: the same without adapters: they are merged into its weights.
    """

    run: TrainedModel
    checkpoint: str
    plain: Segmenter

    @classmethod
    def of(cls, run: TrainedModel, checkpoint: str) -> Source:
        """Merge a loaded run.

        Raises:
            UserError: the adapter's method cannot be merged; names it.
        """
        adapted = run.segmenter.float()  # before merging: a low-precision weight would round the update away
        backbone = adapted.backbone
        assert isinstance(backbone, TimmBackbone)
        with user_errors():
            merged = TimmBackbone(merge(backbone.model), backbone.levels)
        b = run.config.backbone
        plain = Segmenter(
            merged, copy.deepcopy(adapted.decoder), mean=b.mean, std=b.std, ignore_index=adapted.ignore_index
        )
        return cls(run, checkpoint, plain.eval().requires_grad_(False))

    @property
    def backbone(self) -> BackboneConfig:
        """The backbone's configuration."""
        return self.run.config.backbone

    @property
    def adapted(self) -> TimmBackbone:
        """The backbone with its adapters."""
        assert isinstance(self.run.segmenter.backbone, TimmBackbone)
        return self.run.segmenter.backbone

    @property
    def merged(self) -> TimmBackbone:
        """The backbone with its adapters merged."""
        assert isinstance(self.plain.backbone, TimmBackbone)
        return self.plain.backbone

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) for which the position embedding is laid out."""
        model: Any = self.adapted.model
        height, width = model.patch_embed.img_size
        return int(height), int(width)

    @property
    def timm_arguments(self) -> dict[str, Any]:
        """What ``timm.create_model`` needs besides the name."""
        b = self.backbone
        return timm_arguments(b.model, b.patch_size, self.image_size, b.model_args)

    @property
    def resampling(self) -> Resampling:
        """How the pretrained patch kernel and position embedding were fitted."""
        return "timm" if self.backbone.resampling == "timm" else "bicubic"

    @cached_property
    def pretrained(self) -> Mapping[str, Tensor] | None:
        """The tensors of the pretrained weights file; None where the backbone started random."""
        with user_errors():
            weights = locate_weights(self.backbone)
            return None if weights is None else read_weights(weights)

    @property
    def words(self) -> dict[str, Any]:
        """What the texts beside an export say of the backbone, as Python literals."""
        height, width = self.image_size
        arguments = "\n    ".join(f"{name}={value!r}," for name, value in self.timm_arguments.items())
        return self.about | {
            "model": self.backbone.model, "arguments": arguments, "levels": list(self.adapted.levels),
            "patch": self.adapted.patch_size, "channels": self.adapted.embed_dim, "height": height, "width": width,
            "mean": self.backbone.mean, "std": self.backbone.std,
        }  # fmt: skip

    @property
    def about(self) -> dict[str, Any]:
        """Where an export comes from."""
        return {
            "run": self.run.run_dir.resolve().name,
            "adapter": self.run.config.adapter.name,
            "checkpoint": self.checkpoint,
            "step": self.run.step,
        }


@torch.inference_mode()
def features(model: nn.Module, levels: tuple[int, ...], images: Tensor) -> list[Tensor]:
    """The maps (B, C, h, w) of some blocks of a timm transformer, as :class:`TimmBackbone` reads them."""
    reader: Any = model
    maps: list[Tensor] = reader.forward_intermediates(
        images, indices=list(levels), norm=False, output_fmt="NCHW", intermediates_only=True
    )
    return maps
