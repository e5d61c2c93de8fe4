"""Vision foundation models from timm as backbones: an image in, the patch tokens of four depths out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import Tensor, nn

from recyclelora.backbones.loading import load_weights
from recyclelora.backbones.resampling import Resampling

NUM_LEVELS = 4
# As published for 24 blocks, and halved for 12; every other depth is cut into quarters (40 -> 9, 19, 29, 39).
PUBLISHED_LEVELS = {24: (7, 11, 15, 23), 12: (3, 5, 7, 11)}
# SAM's transformer takes any size by itself and does not know timm's switch for it.
ALWAYS_DYNAMIC = ("samvit",)


class TimmBackbone(nn.Module):
    """A timm vision transformer cut after the last block that is read.

    Attributes:
        model: the transformer without head, pooling, final norm and unread blocks; adapters work on `model.blocks`.
        embed_dim: width C of every level.
        depth: number of blocks kept.
        patch_size: side of a patch in pixels.
        levels: the blocks (0-based) whose outputs are returned.
        own_buffers: names of the persistent buffers it came with; what an adapter adds later is not among them.
    """

    def __init__(self, model: Any, levels: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.levels = tuple(levels)
        self.embed_dim = int(model.embed_dim)
        self.depth = len(model.blocks)
        self.patch_size = int(model.patch_embed.patch_size[0])
        parameters = dict(self.named_parameters())
        self.own_buffers = frozenset(name for name in self.state_dict() if name not in parameters)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of normalised images.

        Args:
            images: (B, 3, H, W), H and W multiples of the patch size. At another size than the one the backbone was
                created for, timm resamples the position embedding anew in every call (bicubic with antialias).

        Returns:
            Four tensors (B, C, H / patch, W / patch), patch tokens only, without final norm.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height}x{width} pixels: sides must be multiples of patch {self.patch_size}")
        features: list[Tensor] = self.model.forward_intermediates(
            images, indices=list(self.levels), norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return features


def create_backbone(
    model: str,
    *,
    patch_size: int,
    image_size: tuple[int, int],
    levels: Sequence[int] | None,
    model_args: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
    resampling: Resampling = "bicubic",
    seed: int = 0,
) -> TimmBackbone:
    """Build timm's architecture `model` at a patch and image size and fill it.

    Args:
        model: name of a plain vision transformer of timm, without tag, e.g. `vit_large_patch14_dinov2`.
        patch_size: side of a patch in pixels, also where it is not the pretrained one.
        image_size: (H, W) in pixels for which the position embedding is laid out; other inputs work as well.
        levels: four blocks, 0-based and ascending; None takes `default_levels` of the depth.
        model_args: further arguments of timm's constructor.
        weights: tensors from `read_weights`; None leaves the random initialisation of `seed`.
        resampling: how pretrained patch kernel and position embedding are fitted.
        seed: of the random initialisation, which neither reads nor moves the global generators.

    Raises:
        ValueError: sizes, levels, arguments or weights do not fit the architecture.
    """
    if any(side % patch_size for side in image_size):
        raise ValueError(f"image size {tuple(image_size)}: sides must be multiples of patch {patch_size}")
    built = build_timm(model, seed, timm_arguments(model, patch_size, image_size, model_args))
    chosen = _checked_levels(levels, len(built.blocks))
    # What lies behind the last level would hold parameters without gradient, which break distributed training.
    built.prune_intermediate_layers(list(chosen), prune_norm=True, prune_head=True)
    if weights is not None:
        load_weights(built, weights, resampling)
    return TimmBackbone(built, chosen)


def default_levels(depth: int) -> tuple[int, ...]:
    """The blocks to read from a transformer of `depth` blocks: as published for 24 and 12, else the four quarters."""
    quarters = tuple(depth * (level + 1) // NUM_LEVELS - 1 for level in range(NUM_LEVELS))
    return PUBLISHED_LEVELS.get(depth, quarters)


def timm_arguments(
    model: str, patch_size: int, image_size: tuple[int, int], model_args: Mapping[str, Any]
) -> dict[str, Any]:
    """What `timm.create_model` is given besides the name; see `create_backbone`."""
    dynamic = {} if model.startswith(ALWAYS_DYNAMIC) else {"dynamic_img_size": True}
    sizes = {"img_size": tuple(image_size), "patch_size": patch_size}
    return {**dynamic, **sizes, **model_args, "num_classes": 0}


def build_timm(model: str, seed: int, arguments: Mapping[str, Any]) -> Any:
    """timm's whole model, randomly initialised from `seed` on a generator of its own.

    Raises:
        ValueError: timm refuses the arguments, or the model is no plain vision transformer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed every GPU
        try:
            built = timm.create_model(model, pretrained=False, **arguments)
        except (TypeError, RuntimeError, KeyError, AssertionError, ValueError, AttributeError) as error:
            raise ValueError(f"timm cannot build {model!r} with {dict(arguments)}: {error}") from error
    if not hasattr(built, "blocks") or not hasattr(built, "patch_embed"):
        raise ValueError(f"{model!r} is no plain vision transformer")
    return built


def _checked_levels(levels: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    chosen = default_levels(depth) if levels is None else tuple(levels)
    ascending = all(low < high for low, high in pairwise(chosen))
    if len(chosen) != NUM_LEVELS or not ascending or chosen[0] < 0 or chosen[-1] >= depth:
        raise ValueError(f"levels {list(chosen)}: expected {NUM_LEVELS} ascending blocks between 0 and {depth - 1}")
    return chosen
