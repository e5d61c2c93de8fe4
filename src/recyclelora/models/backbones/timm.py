"""Vision foundation models from timm as backbones: an image in, the patch tokens of four depths out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from recyclelora.models.backbones.loading import load_weights, timm_names
from recyclelora.models.backbones.positions import At, Positions
from recyclelora.models.backbones.resampling import Resampling
from recyclelora.models.timm_library import timm

PositionSource = Literal["pretrained", "laid_out"]

NUM_LEVELS = 4
# As published for 24 blocks, and halved for 12; every other depth is cut into quarters (40 -> 9, 19, 29, 39).
PUBLISHED_LEVELS = {24: (7, 11, 15, 23), 12: (3, 5, 7, 11)}
# SAM's transformer takes any size by itself and does not know timm's switch for it.
ALWAYS_DYNAMIC = ("samvit",)


class TimmBackbone(nn.Module):
    """A timm vision transformer cut after the last block that is read.

    Attributes:
        model: the transformer without head, pooling and unread blocks, and without final norm unless asked for;
            adapters work on `model.blocks`.
        embed_dim: width C of every level.
        depth: number of blocks kept.
        patch_size: side of a patch in pixels.
        levels: the blocks (0-based) whose outputs are returned.
        positions: the pretrained position embedding, for other sizes than the one that is laid out; None: timm
            resamples what is laid out.
        own_buffers: names of the persistent buffers it came with; what an adapter adds later is not among them.
    """

    def __init__(self, model: Any, levels: Sequence[int], positions: Positions | None = None) -> None:
        super().__init__()
        self.model = model
        self.positions = positions
        self.levels = tuple(levels)
        self.embed_dim = int(model.embed_dim)
        self.depth = len(model.blocks)
        self.patch_size = int(model.patch_embed.patch_size[0])
        parameters = dict(self.named_parameters())
        self.own_buffers = frozenset(name for name in self.state_dict() if name not in parameters)

    def forward(self, images: Tensor, inner_blocks: int = 0) -> list[Tensor]:
        """Features of normalised images.

        Args:
            images: (B, 3, H, W), H and W multiples of the patch size. For another size than the one the backbone was
                created for, the position embedding is resampled from ``positions``, and kept; without them by timm,
                from what is laid out, in every call (bicubic with antialias).
            inner_blocks: with 1 or more, the last blocks are not run, and what enters them is returned.

        Returns:
            Four tensors (B, C, H / patch, W / patch), patch tokens only, without final norm. Or what enters the inner
            blocks: class and register tokens as (B, C, number, 1), where there are any, and the patch tokens as above.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"images of {height}x{width} pixels: sides must be multiples of patch {self.patch_size}")
        model = self._at((height // self.patch_size, width // self.patch_size))
        if inner_blocks:
            return self._entering(model, images, inner_blocks)
        features: list[Tensor] = model.forward_intermediates(
            images, indices=list(self.levels), norm=False, output_fmt="NCHW", intermediates_only=True
        )
        return features

    def _entering(self, model: Any, images: Tensor, inner_blocks: int) -> list[Tensor]:
        """What enters the last blocks; see :meth:`forward`."""
        prefixed = model.num_prefix_tokens > 0  # timm's EVA fails where prefixes are asked for that are not there
        (found,) = model.forward_intermediates(
            images, indices=[self.depth - inner_blocks - 1], stop_early=True, norm=False, output_fmt="NCHW",
            intermediates_only=True, return_prefix_tokens=prefixed,
        )  # fmt: skip
        if not prefixed:
            return [found]
        patches, prefix = found
        return [prefix.transpose(1, 2).unsqueeze(-1), patches]

    def _at(self, grid: tuple[int, int]) -> Any:
        """The transformer with the position embedding of this grid."""
        if self.positions is None:
            return self.model
        if not torch.compiler.is_exporting() and grid == self.positions.grid:  # an export is not tied to its example
            return self.model
        return At(self.model, grid, self.positions)


def create_backbone(
    model: str,
    *,
    patch_size: int,
    image_size: tuple[int, int],
    levels: Sequence[int] | None,
    model_args: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
    resampling: Resampling = "bicubic",
    positions: PositionSource = "pretrained",
    seed: int = 0,
    final_norm: bool = False,
    mapped: bool = False,
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
        positions: what images of another size than ``image_size`` get: the pretrained position embedding (a random
            one without weights) resampled once, as `resampling` says; or, as in the first release, what is
            ``laid_out`` resampled again, by timm.
        seed: of the random initialisation, which neither reads nor moves the global generators.
        final_norm: whether the norm behind the last block is kept, for a decoder that uses it.
        mapped: whether the model may hold ``weights`` themselves instead of copies; see `load_weights`.

    Raises:
        ValueError: sizes, levels, arguments or weights do not fit the architecture.
    """
    if any(side % patch_size for side in image_size):
        raise ValueError(f"image size {tuple(image_size)}: sides must be multiples of patch {patch_size}")
    arguments = timm_arguments(model, patch_size, image_size, model_args)
    built = build_timm(model, seed, arguments) if weights is None else build_to_fill(model, seed, arguments)
    chosen = _checked_levels(levels, len(built.blocks))
    # What lies behind the last level would hold parameters without gradient, which break distributed training.
    built.prune_intermediate_layers(list(chosen), prune_norm=not final_norm, prune_head=True)
    pretrained: Mapping[str, Tensor] = {}
    if weights is None:
        pretrained = built.state_dict()
    else:
        load_weights(built, weights, resampling, mapped=mapped)
        if positions == "pretrained":
            pretrained = timm_names(built, weights)
    kept = _positions(built, pretrained, resampling) if positions == "pretrained" else None
    return TimmBackbone(built, chosen, kept)


def _positions(model: Any, pretrained: Mapping[str, Tensor], resampling: Resampling) -> Positions | None:
    """What other sizes are resampled from; None for a model without a position embedding."""
    own, grid = pretrained.get("pos_embed"), model.patch_embed.grid_size
    if own is None or own.is_meta or getattr(model, "pos_embed", None) is None:
        return None
    tables = {
        name: (pretrained[name], table)
        for name, table in model.named_parameters()
        if name.endswith(("rel_pos_h", "rel_pos_w")) and not model.get_submodule(name.split(".attn.")[0]).window_size
    }
    num_prefix = 0 if own.dim() == 4 or model.no_embed_class else model.num_prefix_tokens
    return Positions(own, model.pos_embed, (int(grid[0]), int(grid[1])), num_prefix, resampling, tables)


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


def build_to_fill(model: str, seed: int, arguments: Mapping[str, Any]) -> Any:
    """timm's whole model for those who fill every tensor of its state: these hold anything until then.

    Random values take longer than pretrained ones take to be read. A model with buffers outside its state, which it
    computes itself, is as `build_timm` builds it.
    """
    with torch.device("meta"):
        built = build_timm(model, seed, arguments)
    if {name for name, _ in built.named_buffers()} - built.state_dict().keys():
        return build_timm(model, seed, arguments)
    return built.to_empty(device=torch.get_default_device())


def _checked_levels(levels: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    chosen = default_levels(depth) if levels is None else tuple(levels)
    ascending = all(low < high for low, high in pairwise(chosen))
    if len(chosen) != NUM_LEVELS or not ascending or chosen[0] < 0 or chosen[-1] >= depth:
        raise ValueError(f"levels {list(chosen)}: expected {NUM_LEVELS} ascending blocks between 0 and {depth - 1}")
    return chosen
