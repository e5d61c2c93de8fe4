"""Rein's checkpoints (github.com/w1oves/Rein, read for their names only).

Confirmed in its public code: all names below; that training writes only ``backbone.reins.*`` and ``decode_head.*``,
the backbone coming from the converted DINOv2 file (patch 16, position embedding 32x32); that its tool for full weights
adds that file's tensors as ``backbone.*``; that the head has no ``query_embed``, and with ``replace_query_feat``, which
the published configuration sets, no ``query_feat`` but the linear layer ``querys2feat`` on the tokens' queries.
"""

from __future__ import annotations

from torch import Tensor

from recyclelora.adapters.rein import ReinTokens
from recyclelora.importing.keys import Kind, Tensors

ADAPTER = {
    "reins.learnable_tokens_a": "rein.token_a",
    "reins.learnable_tokens_b": "rein.token_b",
    "reins.scale": "rein.scale",
    "reins.mlp_token2feat.weight": "rein.token_to_feature.weight",
    "reins.mlp_token2feat.bias": "rein.token_to_feature.bias",
    "reins.mlp_delta_f.weight": "rein.feature_to_feature.weight",
    "reins.mlp_delta_f.bias": "rein.feature_to_feature.bias",
    "reins.transform.weight": "rein.token_to_query.weight",
    "reins.transform.bias": "rein.token_to_query.bias",
    "reins.merge.weight": "rein.merge_queries.weight",
    "reins.merge.bias": "rein.merge_queries.bias",
}
QUERIES_TO_FEATURES = ("querys2feat.weight", "querys2feat.bias")
QUERY_FEATURES = "transformer.queries_features.weight"


def first_features(adapter: Tensors, extra: Tensors) -> Tensors:
    """The queries' first features W q + b: a layer there, the constant that it gives once trained here."""
    if not set(QUERIES_TO_FEATURES) <= extra.keys() or not set(ADAPTER.values()) <= adapter.keys():
        return {}
    weight, bias = (extra[name].double() for name in QUERIES_TO_FEATURES)
    return {QUERY_FEATURES: (lent_queries(adapter) @ weight.T + bias).float()}


def lent_queries(adapter: Tensors) -> Tensor:
    """The queries (num_queries, width) of trained tokens, in float64."""
    depth, num_tokens, token_rank = adapter["rein.token_a"].shape
    tokens = ReinTokens(
        depth, adapter["rein.token_b"].shape[-1], num_tokens=num_tokens, token_rank=token_rank, patch_size=16,
        scale=1.0, query_width=len(adapter["rein.token_to_query.bias"]), seed=0,
    )  # fmt: skip
    tokens.load_state_dict({name.removeprefix("rein."): value for name, value in adapter.items()})
    return tokens.double().queries().detach()


KIND = Kind(
    "rein", "backbone.", ADAPTER, extra=frozenset(QUERIES_TO_FEATURES), finish=first_features
)  # fmt: skip
