"""Rein's checkpoints (github.com/w1oves/Rein, read for its names and the order of values inside its tensors only).

Confirmed in its public code: all names below; that training writes only ``backbone.reins.*`` and ``decode_head.*``,
the backbone coming from the converted DINOv2 file (patch 16, position embedding 32x32); that its tool for full weights
adds that file's tensors as ``backbone.*``; that the head has no ``query_embed``, and with ``replace_query_feat``, which
the published configuration sets, no ``query_feat`` but the linear layer ``querys2feat`` on the tokens' queries; that
the layer ``merge`` reads maximum, mean and last query of one channel side by side, and then those of the next.
"""

from __future__ import annotations

from torch import Tensor

from recyclelora.exchange.importing.keys import Kind

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
HEAD = {
    "querys2feat.weight": "transformer.queries_to_features.weight",
    "querys2feat.bias": "transformer.queries_to_features.bias",
}
POOLS = 3


def by_pool(name: str, tensor: Tensor) -> Tensor:
    """``merge.weight`` (q, q * 3), its columns ordered (channel, pool) there, as (q, 3 * q) ordered (pool, channel)."""
    if name != "rein.merge_queries.weight" or tensor.shape[-1] % POOLS:
        return tensor
    return tensor.reshape(len(tensor), -1, POOLS).transpose(1, 2).reshape(tensor.shape)


KIND = Kind(
    "rein", "backbone.", ADAPTER, head=HEAD, layout=by_pool,
    variants={"transformer.queries_features.weight": "adapter.link_features=false"},
)  # fmt: skip
