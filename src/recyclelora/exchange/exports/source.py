"""What every export starts from: a run's adapted model, and the ordinary model it amounts to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters.state import merge
from recyclelora.config.build import locate_weights, user_errors
from recyclelora.config.commands import ExportConfig
from recyclelora.evaluation.load import TrainedModel, load
from recyclelora.models.backbones.config import BackboneConfig
from recyclelora.models.backbones.resampling import Resampling, resize_relative_positions
from recyclelora.models.backbones.timm import TimmBackbone, timm_arguments
from recyclelora.models.backbones.weights import WeightsFile, read_weights
from recyclelora.models.segmenter import Segmenter
from recyclelora.models.timm_library import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from recyclelora.runs.directory import ADAPTER, is_run, not_a_run
from recyclelora.system.errors import UserError


@dataclass(frozen=True)
class Source:
    """A run to export.

    Attributes:
        run: its model, in evaluation mode and float32 on the CPU.
        checkpoint: the pointer it was loaded from.
        plain: the same without adapters: they are merged into its weights.
        wanted: (H, W) for which a backbone is laid out in the export; None: the run's own.
    """

    run: TrainedModel
    checkpoint: str
    plain: Segmenter
    wanted: tuple[int, int] | None = None

    @classmethod
    def of(cls, run: TrainedModel, checkpoint: str, wanted: tuple[int, int] | None = None) -> Source:
        """Merge a loaded run.

        Raises:
            UserError: the adapter's method cannot be merged; names it.
        """
        adapted = run.segmenter.float()  # before merging: a low-precision weight would round the update away
        backbone = adapted.backbone
        assert isinstance(backbone, TimmBackbone)
        with user_errors():
            merged = TimmBackbone(merge(backbone.model), backbone.levels, copy.copy(backbone.positions))
        if merged.positions is not None:
            merged.positions.look_at(merged.model.pos_embed)
        # Whatever of the backbone a decoder runs itself is the merged one's in its copy.
        decoder = copy.deepcopy(adapted.decoder, {id(backbone): merged})
        b = run.config.backbone
        plain = Segmenter(merged, decoder, mean=b.mean, std=b.std, ignore_index=adapted.ignore_index)
        return cls(run, checkpoint, plain.eval().requires_grad_(False), wanted)

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
        """(H, W) for which the position embedding is laid out in the export."""
        return self.wanted or self.own_size

    @property
    def own_size(self) -> tuple[int, int]:
        """(H, W) for which it is laid out in the run."""
        model: Any = self.adapted.model
        height, width = model.patch_embed.img_size
        return int(height), int(width)

    @property
    def position_embedding(self) -> Tensor | None:
        """The position embedding that the run has at `image_size`; None for a model without one."""
        model: Any = self.merged.model
        now: Tensor | None = getattr(model, "pos_embed", None)
        if now is None or self.image_size == self.own_size:
            return now
        grid = self._grid
        if self.merged.positions is not None:
            return self.merged.positions.at(grid, now)
        if now.dim() == 4:
            return resample_abs_pos_embed_nhwc(now, list(grid))  # type: ignore[no-any-return]
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        resampled: Tensor = resample_abs_pos_embed(now, list(grid), list(model.patch_embed.grid_size), prefix)
        return resampled

    @property
    def relative_positions(self) -> dict[str, Tensor]:
        """SAM's tables as the run has them at `image_size`, by name."""
        model, positions = self.merged.model, self.merged.positions
        if positions is not None and self.image_size != self.own_size:
            return positions.tables_at(self._grid, model)
        return {name: t for name, t in model.named_parameters() if name.endswith(("rel_pos_h", "rel_pos_w"))}

    @property
    def _grid(self) -> tuple[int, int]:
        return self.image_size[0] // self.adapted.patch_size, self.image_size[1] // self.adapted.patch_size

    def state_for(self, model: nn.Module) -> dict[str, Tensor]:
        """The merged backbone's tensors, laid out as ``model``, a timm model of `timm_arguments`, is."""
        state: dict[str, Tensor] = dict(self.merged.model.state_dict())
        if self.position_embedding is not None:
            state["pos_embed"] = self.position_embedding
        for name, table in self.relative_positions.items():
            state[name] = resize_relative_positions(table, len(model.get_parameter(name)))
        return state

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
    def weights(self) -> WeightsFile | None:
        """The pretrained weights file; None where the backbone started random."""
        return locate_weights(self.backbone)

    @cached_property
    def pretrained(self) -> Mapping[str, Tensor] | None:
        """Its tensors."""
        with user_errors():
            return None if self.weights is None else read_weights(self.weights)

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


def open_run(config: ExportConfig) -> Source:
    """Load and merge a finished run; a backbone alone is laid out for ``size``, a segmenter is traced for it instead.

    Raises:
        UserError: no run, not finished, no such checkpoint, its adapter cannot be merged, or a size that cannot be.
    """
    run = Path(config.run)
    if not is_run(run):
        raise UserError(f"run={not_a_run(run)}")
    if not (run / ADAPTER).is_file():  # written just before the result; imported runs have no result
        raise UserError(f"run={run}: has not finished; the command that started it goes on from its last checkpoint")
    layout = config.image_size if config.format in ("timm", "peft") else None
    source = Source.of(load(run, config.checkpoint, accelerator="cpu"), config.checkpoint, layout)
    patch = source.adapted.patch_size
    if any(side % patch for side in source.image_size):
        raise UserError(f"size={list(source.image_size)}: sides must be multiples of patch {patch}")
    return source


@torch.inference_mode()
def features(model: nn.Module, levels: tuple[int, ...], images: Tensor) -> list[Tensor]:
    """The maps (B, C, h, w) of some blocks of a timm transformer, as :class:`TimmBackbone` reads them."""
    reader: Any = model
    maps: list[Tensor] = reader.forward_intermediates(
        images, indices=list(levels), norm=False, output_fmt="NCHW", intermediates_only=True
    )
    return maps
