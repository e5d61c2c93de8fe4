"""Mask2Former's pixel decoder: deformable attention over the strides 32, 16 and 8, and one convolution up to stride 4.

The layers and their names are Hugging Face transformers'; the way through them is written here, because theirs waits
for the device in every layer, and works out sampling positions in the half precision of autocast, a quarter of a cell
wide at stride 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerSinePositionEmbedding,
)

from recyclelora.models.decoders.points import bilinear
from recyclelora.models.decoders.pyramid import BilinearPyramid, LearnedPyramid


@dataclass(frozen=True)
class Cells:
    """The cells of all levels in one row.

    Attributes:
        shapes: (h, w) of every level, L cells in all
        sides: (levels, 2) widths and heights
        centres: (L, 2), x before y, in units of the level's sides
    """

    shapes: list[tuple[int, int]]
    sides: Tensor
    centres: Tensor

    @classmethod
    def of(cls, shapes: list[tuple[int, int]], device: torch.device) -> Cells:
        """The cells of levels with these shapes."""
        centres = []
        for height, width in shapes:
            y = (torch.arange(height, device=device) + 0.5) / height
            x = (torch.arange(width, device=device) + 0.5) / width
            centres.append(torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1))
        sides = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float32).to(device, non_blocking=True)
        return cls(shapes, sides, torch.cat(centres))

    def split(self, row: Tensor) -> Sequence[Tensor]:
        """A row (B, L, ...) cut into its levels (B, h_i w_i, ...)."""
        return torch.split(row, [h * w for h, w in self.shapes], 1)


class PixelDecoder(Mask2FormerPixelDecoder):  # type: ignore[misc]
    """Features -> mask features at stride 4 and the three coarser levels, all of one width.

    Args:
        config: transformers' Mask2FormerConfig
        channels: of the four levels
        pyramid: gives the levels their sizes
    """

    def __init__(self, config: Any, channels: Sequence[int], pyramid: BilinearPyramid | LearnedPyramid) -> None:
        super().__init__(config, list(channels))
        self.pyramid = pyramid

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run the decoder.

        Args:
            features: four maps (B, C, h, w)

        Returns:
            mask features (B, width, 4h, 4w); three levels (B, width, h_i, w_i), coarsest first; and the position
            embedding (1, h_i w_i, width) of each.
        """
        stems = [self.adapter_1, *reversed(self.input_projections)]
        projected = self.pyramid.project(features, [stem[0] for stem in stems])
        finest, *coarser = [stem[1](x) for stem, x in zip(stems, projected, strict=True)]
        coarser.reverse()
        cells = Cells.of([(x.shape[-2], x.shape[-1]) for x in coarser], finest.device)
        positions = [sine_positions(self.position_embedding, x) for x in coarser]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in coarser], 1)
        split = cells.split(self._encode(tokens, positions, cells))
        levels = [x.transpose(1, 2).reshape(before.shape) for x, before in zip(split, coarser, strict=True)]
        up = F.interpolate(levels[-1], size=finest.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_projection(self.layer_1(finest + up)), levels, positions

    def _encode(self, tokens: Tensor, positions: list[Tensor], cells: Cells) -> Tensor:
        """Tokens (B, L, width) of all levels through the deformable transformer."""
        located = torch.cat([p + self.level_embed[i] for i, p in enumerate(positions)], 1)
        for layer in self.encoder.layers:
            attended = deformable_attention(layer.self_attn, tokens, located, cells)
            tokens = layer.self_attn_layer_norm(tokens + attended)
            tokens = layer.final_layer_norm(tokens + layer.fc2(F.relu(layer.fc1(tokens))))
        return tokens


def sine_positions(embedding: Mask2FormerSinePositionEmbedding, x: Tensor) -> Tensor:
    """The sine embedding (1, h w, width) in float32 for a map (B, width, h, w)."""
    shape = torch.Size((1, *x.shape[1:]))
    encoded: Tensor = embedding(shape, x.device, torch.float32)
    return encoded.flatten(2).transpose(1, 2)


def deformable_attention(layer: Any, tokens: Tensor, positions: Tensor, cells: Cells) -> Tensor:
    """Multi-scale deformable attention (Zhu et al., 2021, eq. 3), its sampling in float32.

    Args:
        layer: holds the four projections ``value_proj``, ``sampling_offsets``, ``attention_weights``, ``output_proj``
        tokens: (B, L, width)
        positions: (1, L, width), added to the queries
        cells: where the tokens are; offsets start from a token's own centre

    Returns:
        (B, L, width)
    """
    batch, length, _ = tokens.shape
    heads, levels, points = layer.n_heads, layer.n_levels, layer.n_points
    query = tokens + positions
    value = layer.value_proj(tokens).view(batch, length, heads, -1)
    offsets = layer.sampling_offsets(query).view(batch, length, heads, levels, points, 2)
    weights = layer.attention_weights(query).view(batch, length, heads, levels * points)
    with torch.autocast(tokens.device.type, enabled=False):
        places = cells.centres[None, :, None, None, None] + offsets.float() / cells.sides[:, None]
        shares = weights.float().softmax(-1).view(batch, length, heads, levels, points)
        sampled = _sampled(value.float(), places, shares, cells)
    return layer.output_proj(sampled)  # type: ignore[no-any-return]


def _sampled(value: Tensor, places: Tensor, weights: Tensor, cells: Cells) -> Tensor:
    """Weighted sums (B, L, width) of ``value`` (B, L, heads, d) at ``places`` (B, L, heads, levels, points, 2)."""
    batch, length, heads, depth = value.shape
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    shares = weights.permute(3, 0, 2, 1, 4).flatten(1, 2)[:, :, None]
    total = None
    for level, part in enumerate(cells.split(value)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, depth, *cells.shapes[level])
        found = (bilinear(maps, grids[level]) * shares[level]).sum(-1)
        total = found if total is None else total + found
    assert total is not None
    return total.view(batch, heads * depth, length).transpose(1, 2)


def initialise(decoder: PixelDecoder) -> None:
    """The published initialisation."""
    for stem in decoder.input_projections:
        nn.init.xavier_uniform_(stem[0].weight)
        nn.init.zeros_(stem[0].bias)
    for convolution in (decoder.adapter_1[0], decoder.layer_1[0], decoder.mask_projection):
        nn.init.kaiming_uniform_(convolution.weight, a=1)
    nn.init.zeros_(decoder.mask_projection.bias)
    nn.init.normal_(decoder.level_embed)
    for layer in decoder.encoder.layers:
        nn.init.xavier_normal_(layer.fc1.weight)
        nn.init.xavier_normal_(layer.fc2.weight)
        _initialise_attention(layer.self_attn)


def _initialise_attention(layer: Any) -> None:
    """Every head looks into a direction of its own, every point one cell further, with equal weights."""
    angles = torch.arange(layer.n_heads) * (2 * torch.pi / layer.n_heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, layer.n_points + 1).view(-1, 1)
    start = (directions[:, None, None] * steps).expand(-1, layer.n_levels, -1, -1)
    with torch.no_grad():
        layer.sampling_offsets.bias.copy_(start.reshape(-1))
    for weight in (layer.sampling_offsets.weight, layer.attention_weights.weight, layer.attention_weights.bias):
        nn.init.zeros_(weight)
    for projection in (layer.value_proj, layer.output_proj):
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(projection.bias)
