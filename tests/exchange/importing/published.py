"""The published models in numpy: what a checkpoint of Rein, SoMA or RecycleLoRA holds, and what it computes.

Written from the papers' formulas and from the names, shapes and orders that the public code gives its tensors. Nothing
of this project and no torch: whatever the import, the adapters and the decoder do, they are measured by this. Arrays
are float64 inside, files float32.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit, softmax

Array = NDArray[np.floating]
State = dict[str, Array]

# A small DINOv2 with the published head, both sizes reduced.
D, DEPTH, HEADS, PATCH, GRID, LEVELS = 32, 10, 2, 16, 4, (2, 4, 6, 9)
C, CLASSES, QUERIES, HEAD_HEADS, POINTS, GROUPS = 32, 19, 100, 2, 4, 32
ENCODER_LAYERS, ENCODER_WIDTH, DECODER_LAYERS, DECODER_WIDTH = 1, 16, 3, 16
TOKEN_RANK = 3
SOMA_RANK, SOMA_FIRST = 4, 8
MAIN_RANK, SUB_RANK = 4, 2
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])

LAYERS = {"attn.qkv": (3 * D, D), "attn.proj": (D, D), "mlp.fc1": (4 * D, D), "mlp.fc2": (D, 4 * D)}


# --- what the files hold ----------------------------------------------------------------------------------------------


def drawn(name: str, shape: tuple[int, ...]) -> Array:
    """Numbers that depend on the name alone, sharp enough that attention, masks and pools are far from uniform."""
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if "norm" in name or ".gn." in name:
        return 0.1 * numbers + (1.0 if name.endswith("weight") else 0.0)
    if name.endswith("gamma"):
        return 0.5 + 0.1 * numbers
    if name.endswith("bias"):
        return (2.0 if "sampling_offsets" in name else 0.1) * numbers
    if re.search(r"learnable_tokens|query_|level_|pos_embed|cls_token|mask_token", name):
        return numbers
    if "lora" in name:
        return 0.3 * numbers
    return 1.5 * numbers / np.prod(shape[1:]) ** 0.5


def _filled(shapes: Mapping[str, tuple[int, ...]]) -> State:
    return {name: drawn(name, shape).astype(np.float32) for name, shape in shapes.items()}


def dinov2(grid: int = GRID, kernel: int = PATCH) -> State:
    """DINOv2's own file: q, k and v are the three thirds of one layer's rows."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, D), "pos_embed": (1, 1 + grid * grid, D), "mask_token": (1, D), "norm.weight": (D,),
        "norm.bias": (D,), "patch_embed.proj.weight": (D, 3, kernel, kernel), "patch_embed.proj.bias": (D,),
    }  # fmt: skip
    for block in range(DEPTH):
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (D,)
        for layer, (out, width) in LAYERS.items():
            shapes[f"blocks.{block}.{layer}.weight"] = (out, width)
            shapes[f"blocks.{block}.{layer}.bias"] = (out,)
    return _filled(shapes)


def parted(state: Mapping[str, Array]) -> State:
    """The same with q, k and v as layers of their own, as SoMA's converted file has them."""
    parts: State = {}
    for name, array in state.items():
        if ".qkv." in name:
            parts |= {name.replace("qkv", part): rows for part, rows in zip("qkv", np.split(array, 3), strict=True)}
        else:
            parts[name] = array
    return parts


def head(linked: bool = False, features: str = "querys2feat") -> State:
    """mmdetection's Mask2Former head; ``linked``: with Rein's changes."""
    shapes: dict[str, tuple[int, ...]] = {"level_embed.weight": (3, C), "pixel_decoder.level_encoding.weight": (3, C)}
    for place, channels in (("pixel_decoder.input_convs", [D] * 3), ("pixel_decoder.lateral_convs", [D])):
        for i, width in enumerate(channels):
            shapes |= {f"{place}.{i}.conv.weight": (C, width, 1, 1), **_pair(f"{place}.{i}.gn", (C,))}
            if "input" in place:
                shapes[f"{place}.{i}.conv.bias"] = (C,)
    shapes |= {
        "pixel_decoder.output_convs.0.conv.weight": (C, C, 3, 3),
        **_pair("pixel_decoder.output_convs.0.gn", (C,)),
    }
    shapes |= _pair("pixel_decoder.mask_feature", (C, C, 1, 1))
    for i in range(ENCODER_LAYERS):
        layer, cells = f"pixel_decoder.encoder.layers.{i}", HEAD_HEADS * 3 * POINTS
        for name, out in {
            "sampling_offsets": 2 * cells,
            "attention_weights": cells,
            "value_proj": C,
            "output_proj": C,
        }.items():
            shapes |= _pair(f"{layer}.self_attn.{name}", (out, C))
        shapes |= _feed_forward(layer, ENCODER_WIDTH, 2)
    for i in range(DECODER_LAYERS):
        layer = f"transformer_decoder.layers.{i}"
        for attention in ("self_attn", "cross_attn"):
            shapes[f"{layer}.{attention}.attn.in_proj_weight"] = (3 * C, C)
            shapes[f"{layer}.{attention}.attn.in_proj_bias"] = (3 * C,)
            shapes |= _pair(f"{layer}.{attention}.attn.out_proj", (C, C))
        shapes |= _feed_forward(layer, DECODER_WIDTH, 3)
    shapes |= _pair("transformer_decoder.post_norm", (C,)) | _pair("cls_embed", (CLASSES + 1, C))
    for i in (0, 2, 4):
        shapes |= _pair(f"mask_embed.{i}", (C, C))
    if not linked:
        shapes |= {"query_embed.weight": (QUERIES, C), "query_feat.weight": (QUERIES, C)}
    elif features == "querys2feat":
        shapes |= _pair("querys2feat", (C, C))
    else:
        shapes["query_feat.weight"] = (QUERIES, C)
    return {f"decode_head.{name}": array for name, array in _filled(shapes).items()}


def _pair(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _feed_forward(layer: str, width: int, norms: int) -> dict[str, tuple[int, ...]]:
    shapes = _pair(f"{layer}.ffn.layers.0.0", (width, C)) | _pair(f"{layer}.ffn.layers.1", (C, width))
    for i in range(norms):
        shapes |= _pair(f"{layer}.norms.{i}", (C,))
    return shapes


def rein(*, whole: bool = False, features: str = "querys2feat") -> State:
    """Tokens and head, as training saves them; ``whole``: with the backbone, as its tool for full weights does."""
    shapes = {
        "learnable_tokens_a": (DEPTH, QUERIES, TOKEN_RANK), "learnable_tokens_b": (DEPTH, TOKEN_RANK, D),
        **_pair("mlp_token2feat", (D, D)), **_pair("mlp_delta_f", (D, D)), **_pair("transform", (C, D)),
        **_pair("merge", (C, 3 * C)),
    }  # fmt: skip
    state = {f"backbone.reins.{name}": array for name, array in _filled(shapes).items()}
    state["backbone.reins.scale"] = np.float32(0.3).reshape(())
    backbone = {f"backbone.{name}": array for name, array in dinov2().items()} if whole else {}
    return state | backbone | head(linked=True, features=features)


def soma(*, whole: bool = False) -> State:
    """Factors, every bias, the mask token and the head, as its tool for releases keeps them; ``whole``: everything."""
    state = parted(dinov2())
    for block in range(SOMA_FIRST, DEPTH):
        for layer in ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"):
            name = f"blocks.{block}.{layer}"
            out, width = state[f"{name}.weight"].shape
            factors = {f"{name}.lora_A.weight": (SOMA_RANK, width), f"{name}.lora_B.weight": (out, SOMA_RANK)}
            state |= _filled(factors)
            state[f"{name}.bias"] = drawn(f"trained {name}.bias", (out,)).astype(np.float32)
    if not whole:
        state = {n: a for n, a in state.items() if "lora_" in n or n.endswith("bias") or n == "mask_token"}
    return {f"backbone.model.{name}": array for name, array in state.items()} | head()


def recyclelora() -> State:
    """Everything; ``weight`` is the residual."""
    state = dinov2()
    for block in range(DEPTH):
        for layer, (out, width) in LAYERS.items():
            for branch, rank in (("main", MAIN_RANK), ("sub", SUB_RANK)):
                name = f"blocks.{block}.{layer}.lora_"
                state |= _filled({f"{name}A_{branch}": (rank, width), f"{name}B_{branch}": (out, rank)})
    return {f"backbone.{name}": array for name, array in state.items()} | head()


# --- what they compute ------------------------------------------------------------------------------------------------


def logits(kind: str, state: Mapping[str, Array], images: Array) -> Array:
    """Scores (B, CLASSES, H, W) of images (B, 3, H, W) between 0 and 255, from a whole checkpoint's tensors."""
    prefix = "backbone.model." if kind == "soma" else "backbone."
    state = {name: np.asarray(array, np.float64) for name, array in state.items()}
    body = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
    top = {name.removeprefix("decode_head."): array for name, array in state.items() if name.startswith("decode_head.")}
    features = transformer(kind, body, (images - MEAN[:, None, None]) / STD[:, None, None])
    query = lent_queries(body) if kind == "rein" else top["query_embed.weight"]
    first = _linear(top, "querys2feat", query) if "querys2feat.weight" in top else top["query_feat.weight"]
    return segmentation(top, features, query, first, images.shape[-2:])


def transformer(kind: str, state: State, images: Array) -> list[Array]:
    """Features (B, D, h, w) of the four levels: patch tokens, no final norm."""
    batch, _, height, width = images.shape
    rows, columns = height // PATCH, width // PATCH
    patches = images.reshape(batch, 3, rows, PATCH, columns, PATCH)
    x = np.einsum("bcrpsq,dcpq->brsd", patches, state["patch_embed.proj.weight"]).reshape(batch, -1, D)
    x = x + state["patch_embed.proj.bias"]
    x = np.concatenate([np.broadcast_to(state["cls_token"], (batch, 1, D)), x], 1) + state["pos_embed"]
    levels = []
    for block in range(DEPTH):
        name = f"blocks.{block}"
        x = x + state[f"{name}.ls1.gamma"] * _attention(kind, state, name, _layer_norm(state, f"{name}.norm1", x, 1e-6))
        inner = _adapted(kind, state, f"{name}.mlp.fc1", _layer_norm(state, f"{name}.norm2", x, 1e-6))
        gelu = 0.5 * inner * (1 + erf(inner / np.sqrt(2)))
        x = x + state[f"{name}.ls2.gamma"] * _adapted(kind, state, f"{name}.mlp.fc2", gelu)
        if kind == "rein":
            x = np.concatenate([x[:, :1], _refined(state, block, x[:, 1:])], 1)
        if block in LEVELS:
            levels.append(x[:, 1:].transpose(0, 2, 1).reshape(batch, D, rows, columns))
    return levels


def _adapted(kind: str, state: State, name: str, x: Array) -> Array:
    """A linear layer with its low-rank updates: SoMA's scale is alpha / rank = 1, RecycleLoRA's 1 / (sum of ranks)."""
    y = _linear(state, name, x)
    if kind == "soma" and f"{name}.lora_A.weight" in state:
        y = y + x @ state[f"{name}.lora_A.weight"].T @ state[f"{name}.lora_B.weight"].T
    if kind == "recyclelora":
        for branch in ("main", "sub"):
            update = x @ state[f"{name}.lora_A_{branch}"].T @ state[f"{name}.lora_B_{branch}"].T
            y = y + update / (MAIN_RANK + SUB_RANK)
    return y


def _attention(kind: str, state: State, block: str, x: Array) -> Array:
    if kind == "soma":
        q, k, v = (_adapted(kind, state, f"{block}.attn.{part}", x) for part in "qkv")
    else:
        q, k, v = np.split(_adapted(kind, state, f"{block}.attn.qkv", x), 3, axis=-1)
    return _adapted(kind, state, f"{block}.attn.proj", _heads(q, k, v, HEADS))


def _refined(state: State, layer: int, f: Array) -> Array:
    """Rein: f + g (W_f (delta + f) + b_f), delta = a[:, 1:] (W_T T[1:] + b_T), a = softmax(f T^T / sqrt D)."""
    tokens = state["reins.learnable_tokens_a"][layer] @ state["reins.learnable_tokens_b"][layer]
    a = softmax(f @ tokens.T / np.sqrt(D), axis=-1)
    delta = a[..., 1:] @ _linear(state, "reins.mlp_token2feat", tokens[1:])
    return f + state["reins.scale"] * _linear(state, "reins.mlp_delta_f", delta + f)


def lent_queries(state: State) -> Array:
    """Rein's queries (QUERIES, C): maximum, mean and last of each channel lie side by side in front of ``merge``."""
    tokens = state["reins.learnable_tokens_a"] @ state["reins.learnable_tokens_b"]
    queries = _linear(state, "reins.transform", tokens)
    pools = np.empty((QUERIES, 3 * C))
    pools[:, 0::3], pools[:, 1::3], pools[:, 2::3] = queries.max(0), queries.mean(0), queries[-1]
    return _linear(state, "reins.merge", pools)


def segmentation(state: State, features: list[Array], query: Array, first: Array, size: tuple[int, int]) -> Array:
    """Mask2Former: sum over the queries of softmax(class) sigmoid(mask), masks enlarged to ``size`` first."""
    pixels, levels = _pixel_decoder(state, features)
    batch = len(pixels)
    inputs = [
        level.reshape(batch, C, -1).transpose(0, 2, 1) + state["level_embed.weight"][i]
        for i, level in enumerate(levels)
    ]
    places = [_sine(level.shape[-2:]) for level in levels]
    x = np.broadcast_to(first, (batch, QUERIES, C))
    classes, masks = _predict(state, x, pixels)
    for i in range(DECODER_LAYERS):
        level, name = i % 3, f"transformer_decoder.layers.{i}"
        seen = expit(_resized(masks, levels[level].shape[-2:])).reshape(batch, QUERIES, -1) >= 0.5
        seen |= ~seen.any(-1, keepdims=True)
        key = inputs[level] + places[level]
        x = _norm(
            state, f"{name}.norms.0", x + _multi_head(state, f"{name}.cross_attn", x + query, key, inputs[level], seen)
        )
        x = _norm(state, f"{name}.norms.1", x + _multi_head(state, f"{name}.self_attn", x + query, x + query, x))
        x = _norm(state, f"{name}.norms.2", x + _fed_forward(state, name, x))
        classes, masks = _predict(state, x, pixels)
    return np.einsum("bqc,bqhw->bchw", softmax(classes, axis=-1)[..., :-1], expit(_resized(masks, size)))


def _predict(state: State, x: Array, pixels: Array) -> tuple[Array, Array]:
    x = _norm(state, "transformer_decoder.post_norm", x)
    embedded = x
    for i in (0, 2, 4):
        embedded = _linear(state, f"mask_embed.{i}", embedded)
        embedded = np.maximum(embedded, 0) if i < 4 else embedded
    return _linear(state, "cls_embed", x), np.einsum("bqc,bchw->bqhw", embedded, pixels)


def _pixel_decoder(state: State, features: list[Array]) -> tuple[Array, list[Array]]:
    """Mask features at stride 4, and the maps at strides 32, 16 and 8."""
    height, width = features[0].shape[-2:]
    sizes = [(4 * height, 4 * width), (2 * height, 2 * width), (height, width), (height // 2, width // 2)]
    fine, *rest = [_resized(level, size) for level, size in zip(features, sizes, strict=True)]
    name = "pixel_decoder"
    maps = [_convolved(state, f"{name}.input_convs.{i}", level) for i, level in enumerate(reversed(rest))]
    shapes = [level.shape[-2:] for level in maps]
    tokens = np.concatenate([level.reshape(len(level), C, -1).transpose(0, 2, 1) for level in maps], 1)
    encoding = state[f"{name}.level_encoding.weight"]
    place = np.concatenate([_sine(shape) + encoding[i] for i, shape in enumerate(shapes)])
    for i in range(ENCODER_LAYERS):
        layer = f"{name}.encoder.layers.{i}"
        tokens = _norm(
            state, f"{layer}.norms.0", tokens + _deformable(state, f"{layer}.self_attn", tokens, place, shapes)
        )
        tokens = _norm(state, f"{layer}.norms.1", tokens + _fed_forward(state, layer, tokens))
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    parts = np.split(tokens, ends[:-1], axis=1)
    levels = [part.transpose(0, 2, 1).reshape(-1, C, *shape) for part, shape in zip(parts, shapes, strict=True)]
    top = _convolved(state, f"{name}.lateral_convs.0", fine) + _resized(levels[-1], fine.shape[-2:])
    top = np.maximum(_convolved(state, f"{name}.output_convs.0", top), 0)
    kernel = state[f"{name}.mask_feature.weight"][..., 0, 0]
    return np.einsum("bchw,dc->bdhw", top, kernel) + state[f"{name}.mask_feature.bias"][:, None, None], levels


def _deformable(state: State, name: str, tokens: Array, place: Array, shapes: list[tuple[int, int]]) -> Array:
    """Deformable DETR, eq. 3: every token looks at POINTS places around its own centre in each level."""
    batch, length, _ = tokens.shape
    values = _linear(state, f"{name}.value_proj", tokens).reshape(batch, length, HEAD_HEADS, -1)
    asked = tokens + place
    offsets = _linear(state, f"{name}.sampling_offsets", asked).reshape(batch, length, HEAD_HEADS, 3, POINTS, 2)
    weights = _linear(state, f"{name}.attention_weights", asked).reshape(batch, length, HEAD_HEADS, 3 * POINTS)
    weights = softmax(weights, axis=-1).reshape(batch, length, HEAD_HEADS, 3, POINTS)
    centres = np.concatenate([_centres(shape) for shape in shapes])
    out = np.zeros((batch, length, HEAD_HEADS, C // HEAD_HEADS))
    start = 0
    for level, (rows, columns) in enumerate(shapes):
        area = values[:, start : start + rows * columns].reshape(batch, rows, columns, HEAD_HEADS, -1)
        start += rows * columns
        x = (centres[:, 0, None, None] * columns + offsets[..., level, :, 0]) - 0.5
        y = (centres[:, 1, None, None] * rows + offsets[..., level, :, 1]) - 0.5
        out += np.einsum("blhp,blhpd->blhd", weights[..., level, :], _looked_up(area, x, y))
    return _linear(state, f"{name}.output_proj", out.reshape(batch, length, C))


def _looked_up(area: Array, x: Array, y: Array) -> Array:
    """Bilinear values of (B, rows, columns, heads, d) at x, y (B, L, heads, points) in cells; zero outside."""
    rows, columns = area.shape[1:3]
    b, h = np.arange(len(area))[:, None, None, None], np.arange(HEAD_HEADS)[None, None, :, None]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total = np.zeros((*x.shape, area.shape[-1]))
    for i, j in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (i >= 0) & (i < columns) & (j >= 0) & (j < rows)
        share = (1 - abs(x - i)) * (1 - abs(y - j)) * inside
        total += share[..., None] * area[b, j.clip(0, rows - 1), i.clip(0, columns - 1), h]
    return total


def _centres(shape: tuple[int, int]) -> Array:
    """(x, y) of every cell's centre, between 0 and 1."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([(x.ravel() + 0.5) / shape[1], (y.ravel() + 0.5) / shape[0]], -1)


def _sine(shape: tuple[int, int]) -> Array:
    """The normalised sine embedding (rows * columns, C), y before x."""
    y, x = np.mgrid[1 : shape[0] + 1, 1 : shape[1] + 1].astype(np.float64)
    half = C // 2
    steps = 10000.0 ** (2 * (np.arange(half) // 2) / half)
    parts = []
    for axis, side in ((y, shape[0]), (x, shape[1])):
        angle = (axis / (side + 1e-6) * 2 * np.pi).reshape(-1, 1) / steps
        parts.append(np.stack([np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])], -1).reshape(len(angle), half))
    return np.concatenate(parts, -1)


def _multi_head(state: State, name: str, query: Array, key: Array, value: Array, seen: Array | None = None) -> Array:
    weights, biases = (np.split(state[f"{name}.attn.in_proj_{part}"], 3) for part in ("weight", "bias"))
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    return _linear(state, f"{name}.attn.out_proj", _heads(q, k, v, HEAD_HEADS, seen))


def _heads(q: Array, k: Array, v: Array, heads: int, seen: Array | None = None) -> Array:
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    if seen is not None:
        scores = np.where(seen[:, None], scores, -np.inf)
    mixed = softmax(scores, axis=-1) @ v
    return mixed.transpose(0, 2, 1, 3).reshape(len(q), q.shape[2], -1)


def _fed_forward(state: State, layer: str, x: Array) -> Array:
    inner = np.maximum(_linear(state, f"{layer}.ffn.layers.0.0", x), 0)
    return _linear(state, f"{layer}.ffn.layers.1", inner)


def _linear(state: State, name: str, x: Array) -> Array:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Array) -> Array:
    return _layer_norm(state, name, x, 1e-5)


def _layer_norm(state: State, name: str, x: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * state[f"{name}.weight"] + state[f"{name}.bias"]
    )


def _convolved(state: State, name: str, x: Array) -> Array:
    """A convolution of 1x1 or 3x3 (padded with zeros) and a group norm."""
    kernel = state[f"{name}.conv.weight"]
    reach = kernel.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[-2:], (2, 3))
    y = np.einsum("bchwij,dcij->bdhw", windows, kernel)
    y = y + (state[f"{name}.conv.bias"][:, None, None] if f"{name}.conv.bias" in state else 0)
    grouped = y.reshape(len(y), GROUPS, -1)
    grouped = grouped - grouped.mean(-1, keepdims=True)
    y = (grouped / np.sqrt((grouped**2).mean(-1, keepdims=True) + 1e-5)).reshape(y.shape)
    return y * state[f"{name}.gn.weight"][:, None, None] + state[f"{name}.gn.bias"][:, None, None]


# --- resizing ---------------------------------------------------------------------------------------------------------


def _resized(x: Array, size: tuple[int, int]) -> Array:
    """Maps (..., h, w) bilinearly as (..., *size), pixels being areas (align_corners=False)."""
    rows, columns = (_weights(old, new, _hat, 1) for old, new in zip(x.shape[-2:], size, strict=True))
    return np.einsum("rh,...hw,sw->...rs", rows, x, columns)


def bicubic(x: Array, size: tuple[int, int]) -> Array:
    """Maps (..., h, w) by cubic convolution (Keys, 1981, a = -0.75), as both projects fit kernel and positions."""
    rows, columns = (_weights(old, new, _keys, 2) for old, new in zip(x.shape[-2:], size, strict=True))
    return np.einsum("rh,...hw,sw->...rs", rows, x, columns)


def _weights(old: int, new: int, kernel: object, reach: int) -> Array:
    """How much of every old cell is in every new one; beyond the edge lies the edge's own value."""
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        if kernel is _hat:
            centre = max(centre, 0.0)  # bilinear interpolation does not reach over the first centre
        for cell in range(int(np.floor(centre)) - reach + 1, int(np.floor(centre)) + reach + 1):
            matrix[row, min(max(cell, 0), old - 1)] += kernel(abs(centre - cell))  # type: ignore[operator]
    return matrix


def _hat(distance: float) -> float:
    return max(1 - distance, 0.0)


def _keys(d: float, a: float = -0.75) -> float:
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0
