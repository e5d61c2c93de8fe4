"""Mask2Former's transformer decoder: queries that attend to the part of the image their own mask covers.

The layers and their names are Hugging Face transformers'; the way through them is written here, so that attention runs
fused, one mask serves all heads, and an adapter can lend the queries' position embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import Mask2FormerTransformerModule


class QueryDecoder(Mask2FormerTransformerModule):  # type: ignore[misc]
    """Queries -> their state after every layer, and the mask that each then draws.

    Args:
        config: transformers' Mask2FormerConfig
        own_queries: whether the queries' position embedding is a parameter here; otherwise every call is given one.
        own_features: whether the queries' first features are a parameter here; otherwise a linear layer makes them from
            the position embedding that a call is given.
    """

    def __init__(self, config: Any, own_queries: bool, own_features: bool = True) -> None:
        super().__init__(config.feature_size, config)
        self.num_heads = config.num_attention_heads
        if not own_queries:
            del self.queries_embedder
        self.queries_to_features: nn.Linear | None = None
        if not own_features:
            del self.queries_features
            self.queries_to_features = nn.Linear(config.hidden_dim, config.hidden_dim)

    def forward(
        self, pixels: Tensor, levels: list[Tensor], positions: list[Tensor], query: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run the decoder.

        Args:
            pixels: mask features (B, width, H, W)
            levels: three maps (B, width, h_i, w_i), coarsest first; layer i attends to level i mod 3
            positions: their position embeddings (1, h_i w_i, width)
            query: position embedding (num_queries, width) of the queries; None takes the own one

        Returns:
            States (B, num_queries, width), normalised, and mask logits (B, num_queries, H, W): one of each before the
            first layer and after every layer.
        """
        values = [x.flatten(2).transpose(1, 2) + self.level_embed.weight[i] for i, x in enumerate(levels)]
        keys = [value + position for value, position in zip(values, positions, strict=True)]
        place = self.queries_embedder.weight if query is None else query
        first = self.queries_features.weight if self.queries_to_features is None else self.queries_to_features(query)
        state = first.expand(pixels.shape[0], -1, -1)
        states = [self.decoder.layernorm(state)]
        masks = [self._mask(states[-1], pixels)]
        for index, layer in enumerate(self.decoder.layers):
            level = index % len(levels)
            seen = attention_mask(masks[-1], levels[level].shape[-2:])
            state = self._layer(layer, state, place, keys[level], values[level], seen)
            states.append(self.decoder.layernorm(state))
            masks.append(self._mask(states[-1], pixels))
        return states, masks

    def _mask(self, state: Tensor, pixels: Tensor) -> Tensor:
        embedded = self.decoder.mask_predictor.mask_embedder(state)
        return torch.einsum("bqc,bchw->bqhw", embedded, pixels)

    def _layer(self, layer: Any, state: Tensor, place: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
        """Masked cross-attention, self-attention and a feed-forward network, each with its norm behind it."""
        cross, own = layer.cross_attn, layer.self_attn
        q, k, v = (
            F.linear(x, weight, bias)
            for x, weight, bias in zip(
                (state + place, key, value), cross.in_proj_weight.chunk(3), cross.in_proj_bias.chunk(3), strict=True
            )
        )
        state = layer.cross_attn_layer_norm(state + cross.out_proj(attention(q, k, v, self.num_heads, seen)))
        placed = state + place
        q, k, v = own.q_proj(placed), own.k_proj(placed), own.v_proj(state)
        state = layer.self_attn_layer_norm(state + own.out_proj(attention(q, k, v, self.num_heads)))
        return layer.final_layer_norm(state + layer.fc2(F.relu(layer.fc1(state))))  # type: ignore[no-any-return]


def attention(query: Tensor, key: Tensor, value: Tensor, num_heads: int, seen: Tensor | None = None) -> Tensor:
    """Multi-head attention of projected tokens (B, Q, c), (B, L, c), (B, L, c); ``seen`` (B, Q, L) is True where a
    query may look, for all heads alike."""
    q, k, v = (x.view(*x.shape[:2], num_heads, -1).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if seen is None else seen[:, None])
    return mixed.transpose(1, 2).flatten(2)


@torch.no_grad()
def attention_mask(masks: Tensor, size: torch.Size) -> Tensor:
    """Where queries may look: inside their mask, or everywhere when it is empty.

    Args:
        masks: logits (B, Q, H, W)
        size: (h, w) of the level

    Returns:
        (B, Q, h w), True where seen
    """
    coarse = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    seen = (coarse.sigmoid() >= 0.5).flatten(2)
    return seen | ~seen.any(-1, keepdim=True)


def initialise(decoder: QueryDecoder) -> None:
    """The published initialisation; in-projections of self-attention as one (3 c x c) matrix, as it draws them."""
    for layer in decoder.decoder.layers:
        own, cross = layer.self_attn, layer.cross_attn
        for projection in (own.q_proj, own.k_proj, own.v_proj):
            nn.init.normal_(projection.weight, std=(2 / (4 * projection.in_features)) ** 0.5)
            nn.init.zeros_(projection.bias)
        for weight in (cross.in_proj_weight, cross.out_proj.weight, own.out_proj.weight):
            nn.init.xavier_normal_(weight)
        for bias in (cross.in_proj_bias, cross.out_proj.bias, own.out_proj.bias):
            nn.init.zeros_(bias)
        for linear in (layer.fc1, layer.fc2):
            nn.init.xavier_normal_(linear.weight)
