"""Rein (Wei et al., 2024, arXiv 2312.04265): learned tokens refine the features between the blocks.

After block i, for the patch tokens f (N, c), with T_i = A_i B_i (m, c):
a = softmax(f T_i^T / sqrt c); delta = a[:, 1:] (W_T T_i[1:] + b_T); f <- f + g (W_f (delta + f) + b_f).
W_T, W_f and the scalar g are shared by all layers. The tokens can also become queries of the decoder: their position
embedding is then made from the tokens, and by the published configuration their first features as well, W_q Q + b.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.adapters.method import Adapted, AdapterContext
from recyclelora.adapters.state import ParameterRule, Unmergeable
from recyclelora.adapters.tokens.config import ReinConfig
from recyclelora.adapters.transformer import (
    applied,
    chosen_blocks,
    device_of,
    num_prefix_tokens,
    patch_side,
    token_width,
    uniform,
)
from recyclelora.system.checks import accept


class ReinTokens(Unmergeable):
    """All that Rein adds to a transformer.

    Args:
        depth: number of refined blocks.
        width: c, channels of a token.
        num_tokens: m; token 0 takes part in the softmax but adds nothing.
        token_rank: inner size of A_i B_i.
        patch_size: side of a patch in pixels; it enters the spread of the tokens.
        scale: where g starts.
        query_width: channels of the decoder's queries; None makes no query link.
        seed: of the tokens and layers.
    """

    method = "rein"

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        num_tokens: int,
        token_rank: int,
        patch_size: int,
        scale: float,
        query_width: int | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.width = width
        generator = torch.Generator().manual_seed(seed)
        bound = math.sqrt(6 / (3 * patch_size**2 + math.sqrt(token_rank * width)))
        self.token_a = nn.Parameter(uniform((depth, num_tokens, token_rank), bound, generator))
        self.token_b = nn.Parameter(uniform((depth, token_rank, width), bound, generator))
        self.token_to_feature = linear(width, width, generator)  # W_T
        self.feature_to_feature = linear(width, width, generator)  # W_f
        self.scale = nn.Parameter(torch.tensor(float(scale)))  # g
        if query_width is not None:
            self.token_to_query = linear(width, query_width, generator)  # W_Q
            self.merge_queries = linear(3 * query_width, query_width, generator)  # W_M
        self._extend(depth, num_tokens, patch_size, generator)

    def _extend(self, depth: int, num_tokens: int, patch_size: int, generator: torch.Generator) -> None:
        """Add what a method that derives from Rein has besides."""

    def refine(self, layer: int, features: Tensor) -> Tensor:
        """Patch tokens (B, N, c) after refined block ``layer`` -> (B, N, c)."""
        return features + (self.scale * self.delta(layer, features)).to(features.dtype)

    def delta(self, layer: int, features: Tensor) -> Tensor:
        """W_f (delta + f) + b_f of features (..., c) in any shape."""
        tokens = (self.token_a[layer] @ self.token_b[layer]).to(features.dtype)
        return attend(features, tokens, self.token_to_feature, self.feature_to_feature)

    def queries(self) -> Tensor:
        """Q = W_M [max_i Q_i; mean_i Q_i; Q_L] + b with Q_i = W_Q T_i + b (num_tokens, query_width)."""
        queries = self.token_to_query(self.token_a @ self.token_b)
        summary = torch.cat([queries.amax(0), queries.mean(0), queries[-1]], dim=-1)
        merged: Tensor = self.merge_queries(summary)
        return merged


@dataclass(frozen=True, eq=False)
class Refinement:
    """The forward hook of one block: leaves class and register tokens alone.

    An object, not a closure, so that a deep copy of the model refers to its own tokens.
    """

    tokens: ReinTokens
    layer: int
    num_prefix_tokens: int

    def __call__(self, block: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """Output of the block, (B, prefix + N, c) or (B, H, W, c) without prefix -> the same shape, refined."""
        if output.ndim == 4:
            return self.tokens.refine(self.layer, output.flatten(1, 2)).view(output.shape)
        prefix, patches = output[:, : self.num_prefix_tokens], output[:, self.num_prefix_tokens :]
        return torch.cat([prefix, self.tokens.refine(self.layer, patches)], dim=1)


@dataclass(frozen=True)
class Rein:
    """Rein as a method; it adds ``model.rein`` and a hook to every refined block."""

    options: ReinConfig

    def check(self, model: nn.Module) -> dict[int, nn.Module]:
        """See `method.Method`; gives the blocks that will be refined, by number."""
        accept(self.options)
        return chosen_blocks(model, self.options.blocks)

    def apply(self, model: nn.Module, context: AdapterContext) -> Adapted:
        """See `method.Method.apply`."""
        o = self.options
        if o.link and not context.has_queries:
            raise ValueError("link=true: the decoder has no queries that tokens could become; use adapter.link=false")
        link = context.has_queries if o.link is None else o.link
        if o.link_features and not link:
            raise ValueError(
                "link_features=true: there are no lent queries to make features of; use link_features=null"
            )
        chosen = self.check(model)
        tokens = self._kind()(
            len(chosen), token_width(model), num_tokens=o.num_tokens, token_rank=o.token_rank,
            patch_size=patch_side(model), scale=o.scale, query_width=o.query_width if link else None,
            seed=context.seed,
        ).to(device_of(model))  # fmt: skip
        model.requires_grad_(False)
        model.add_module(tokens.method, tokens)
        self._attach(model, tokens, chosen)
        if not link:
            return Adapted(self._rules(tokens))
        return Adapted(self._rules(tokens), query=tokens.queries, query_features=o.link_features is not False)

    def _kind(self) -> type[ReinTokens]:
        return ReinTokens

    def _attach(self, model: nn.Module, tokens: ReinTokens, chosen: Mapping[int, nn.Module]) -> None:
        for layer, block in enumerate(chosen.values()):
            block.register_forward_hook(Refinement(tokens, layer, num_prefix_tokens(model)))

    def _rules(self, tokens: ReinTokens) -> dict[str, ParameterRule]:
        name = tokens.method
        layers = ParameterRule(self.options.lr_mult, self.options.weight_decay, name)
        plain = ParameterRule(self.options.lr_mult, 0.0, f"{name}.tokens")
        return {f"{name}.{key}": plain if "." not in key else layers for key, _ in tokens.named_parameters()}


def attend(
    features: Tensor, tokens: Tensor, to_feature: nn.Linear, to_delta: nn.Linear, *, normalise: bool = False
) -> Tensor:
    """W_f (a[1:] (W_T T[1:] + b_T) + f) + b_f with a = softmax(f T^T / sqrt c).

    Args:
        features: f (..., c).
        tokens: T (m, c) in the dtype of f.
        to_feature: W_T, b_T.
        to_delta: W_f, b_f.
        normalise: bring the m products of each feature to mean 0 and variance 1 before the softmax.
    """
    logits = features @ tokens.T
    if normalise:
        logits = F.layer_norm(logits, logits.shape[-1:])
    attention = (logits / math.sqrt(features.shape[-1])).softmax(-1)
    delta = attention[..., 1:].to(features.dtype) @ applied(to_feature, tokens[1:])
    return applied(to_delta, delta + features)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with PyTorch's usual start, U(-1/sqrt inputs, 1/sqrt inputs), from its own generator."""
    layer = nn.Linear(inputs, outputs, device="meta")
    layer.weight = nn.Parameter(uniform((outputs, inputs), inputs**-0.5, generator))
    layer.bias = nn.Parameter(uniform((outputs,), inputs**-0.5, generator))
    return layer
