"""Dense decoders: the linear one and SegFormer's by their formulas, the others as the library's over maps by hand."""

from __future__ import annotations

import pytest
import torch
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from .models import features, small

SIZE, PIXELS = (4, 6), (64, 96)


def scattered(name: str) -> nn.Module:
    """A decoder with weights away from their start, where biases are zero and norms do nothing."""
    decoder = small(name).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return decoder


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def mixed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer over the channels of (B, C, h, w)."""
    found = torch.einsum("oc,bchw->bohw", weight.flatten(1), x)
    return found if bias is None else found + bias[:, None, None]


def normalised(x: Tensor, groups: int, norm: nn.Module) -> Tensor:
    """Mean 0 and variance 1 over the channels of a group and all cells, then the norm's own factor and shift."""
    parts = x.unflatten(1, (groups, -1))
    parts = parts - parts.mean((2, 3, 4), keepdim=True)
    x = (parts / (parts.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def test_the_linear_decoder_is_its_formula():
    decoder, levels = scattered("linear"), features(2, SIZE)
    weights = decoder.classifier.weight.flatten(1).split(32, dim=1)
    logits = decoder.classifier.bias[:, None, None]
    for level, norm, weight in zip(levels, decoder.norms, weights, strict=True):
        centred = level - level.mean(1, keepdim=True)
        token = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        logits = logits + mixed(token * norm.weight[:, None, None] + norm.bias[:, None, None], weight)
    torch.testing.assert_close(decoder(levels, PIXELS), resized(logits, PIXELS), atol=1e-5, rtol=1e-5)


def test_segformers_decoder_is_its_formula():
    """Each level through a linear layer, all at a quarter of a patch's stride, fused by another, normalised, ReLU."""
    decoder, levels = scattered("segformer"), features(2, SIZE)
    fuse, norm = decoder.body.fuse_stage[0], decoder.body.fuse_stage[1]
    deepest_first = [
        resized(mixed(level, stage.linear.weight, stage.linear.bias), (4 * SIZE[0], 4 * SIZE[1]))
        for stage, level in zip(decoder.body.mlp_stage, levels[::-1], strict=True)
    ]
    fused = mixed(torch.cat(deepest_first, 1), fuse.weight, fuse.bias)
    cells = normalised(fused, 32 // 8, norm).clamp(min=0)
    expected = resized(mixed(cells, decoder.classifier.weight, decoder.classifier.bias), PIXELS)
    torch.testing.assert_close(decoder(levels, PIXELS), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [("fpn", FPNDecoder), ("upernet", UPerNetDecoder), ("dpt", DPTDecoder)])
@pytest.mark.parametrize("size", [SIZE, (5, 7)])
def test_others_are_the_librarys_over_maps_at_strides_4_to_32(name, kind, size):
    """Odd maps repeat their last row and column, which are cut off again."""
    decoder, levels = scattered(name), features(2, size)
    assert type(decoder.body) is kind
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    rows, columns = (torch.arange(end).clamp(max=last - 1) for end, last in zip(even, size, strict=True))
    padded = [level[:, :, rows][..., columns] for level in levels]
    factors = (1, 1, 1, 1) if name == "dpt" else (4, 2, 1, 0.5)
    maps = [resized(level, (int(f * even[0]), int(f * even[1]))) for level, f in zip(padded, factors, strict=True)]
    given = {"fpn": [maps], "upernet": [[None, None, *maps]], "dpt": [maps, [None] * 4]}[name]
    cells = decoder.body(*given)
    stride = 8 if name == "dpt" else 4
    assert cells.shape[-2:] == (stride * even[0], stride * even[1])
    logits = mixed(cells, decoder.classifier.weight, decoder.classifier.bias)
    kept = logits[..., : stride * size[0], : stride * size[1]]
    pixels = (16 * size[0], 16 * size[1])
    torch.testing.assert_close(decoder(levels, pixels), resized(kept, pixels), atol=1e-4, rtol=1e-4)
