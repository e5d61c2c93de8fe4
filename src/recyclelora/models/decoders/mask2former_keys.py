"""mmdetection's names of Mask2Former's parameters, which released Rein and SoMA checkpoints hold, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# mmdetection's names (as patterns of whole names) -> ours; \1, \2 ... are the bracketed parts
RENAMED = {
    r"pixel_decoder\.input_convs\.(\d+)\.conv\.(\w+)": r"pixel_decoder.input_projections.\1.0.\2",
    r"pixel_decoder\.input_convs\.(\d+)\.gn\.(\w+)": r"pixel_decoder.input_projections.\1.1.\2",
    r"pixel_decoder\.encoder\.layers\.(\d+)\.self_attn\.(\w+\.\w+)": r"pixel_decoder.encoder.layers.\1.self_attn.\2",
    r"pixel_decoder\.encoder\.layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)": r"pixel_decoder.encoder.layers.\1.fc1.\2",
    r"pixel_decoder\.encoder\.layers\.(\d+)\.ffn\.layers\.1\.(\w+)": r"pixel_decoder.encoder.layers.\1.fc2.\2",
    r"pixel_decoder\.encoder\.layers\.(\d+)\.norms\.0\.(\w+)": (
        r"pixel_decoder.encoder.layers.\1.self_attn_layer_norm.\2"
    ),
    r"pixel_decoder\.encoder\.layers\.(\d+)\.norms\.1\.(\w+)": r"pixel_decoder.encoder.layers.\1.final_layer_norm.\2",
    r"pixel_decoder\.level_encoding\.weight": r"pixel_decoder.level_embed",
    r"pixel_decoder\.lateral_convs\.0\.conv\.(\w+)": r"pixel_decoder.adapter_1.0.\1",
    r"pixel_decoder\.lateral_convs\.0\.gn\.(\w+)": r"pixel_decoder.adapter_1.1.\1",
    r"pixel_decoder\.output_convs\.0\.conv\.(\w+)": r"pixel_decoder.layer_1.0.\1",
    r"pixel_decoder\.output_convs\.0\.gn\.(\w+)": r"pixel_decoder.layer_1.1.\1",
    r"pixel_decoder\.mask_feature\.(\w+)": r"pixel_decoder.mask_projection.\1",
    r"transformer_decoder\.layers\.(\d+)\.cross_attn\.attn\.(\S+)": r"transformer.decoder.layers.\1.cross_attn.\2",
    r"transformer_decoder\.layers\.(\d+)\.self_attn\.attn\.out_proj\.(\w+)": (
        r"transformer.decoder.layers.\1.self_attn.out_proj.\2"
    ),
    r"transformer_decoder\.layers\.(\d+)\.ffn\.layers\.0\.0\.(\w+)": r"transformer.decoder.layers.\1.fc1.\2",
    r"transformer_decoder\.layers\.(\d+)\.ffn\.layers\.1\.(\w+)": r"transformer.decoder.layers.\1.fc2.\2",
    r"transformer_decoder\.layers\.(\d+)\.norms\.0\.(\w+)": r"transformer.decoder.layers.\1.cross_attn_layer_norm.\2",
    r"transformer_decoder\.layers\.(\d+)\.norms\.1\.(\w+)": r"transformer.decoder.layers.\1.self_attn_layer_norm.\2",
    r"transformer_decoder\.layers\.(\d+)\.norms\.2\.(\w+)": r"transformer.decoder.layers.\1.final_layer_norm.\2",
    r"transformer_decoder\.post_norm\.(\w+)": r"transformer.decoder.layernorm.\1",
    r"query_embed\.weight": r"transformer.queries_embedder.weight",
    r"query_feat\.weight": r"transformer.queries_features.weight",
    r"level_embed\.weight": r"transformer.level_embed.weight",
    r"cls_embed\.(\w+)": r"class_predictor.\1",
    r"mask_embed\.0\.(\w+)": r"transformer.decoder.mask_predictor.mask_embedder.0.0.\1",
    r"mask_embed\.2\.(\w+)": r"transformer.decoder.mask_predictor.mask_embedder.1.0.\1",
    r"mask_embed\.4\.(\w+)": r"transformer.decoder.mask_predictor.mask_embedder.2.0.\1",
}

# One matrix there, one each for query, key and value here.
SPLIT = r"transformer_decoder\.layers\.(\d+)\.self_attn\.attn\.in_proj_(weight|bias)"


def our_names(name: str) -> list[str]:
    """The parameters that mmdetection's ``name`` becomes; three where its tensor is to be cut into thirds (dim 0).

    Raises:
        ValueError: mmdetection's head has no such parameter.
    """
    if match := re.fullmatch(SPLIT, name):
        return [f"transformer.decoder.layers.{match[1]}.self_attn.{part}_proj.{match[2]}" for part in "qkv"]
    for pattern, ours in RENAMED.items():
        if re.fullmatch(pattern, name):
            return [re.sub(pattern, ours, name)]
    raise ValueError(f"{name}: not a parameter of mmdetection's Mask2FormerHead")


def from_mmdet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of mmdetection's head, its names without ``decode_head.``, as a state of our Mask2Former.

    Raises:
        ValueError: naming a parameter that the head does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        names = our_names(name)
        ours |= dict(zip(names, value.chunk(len(names)), strict=True))
    return ours
