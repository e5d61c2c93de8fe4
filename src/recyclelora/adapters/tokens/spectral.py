"""SET and Causal-Tune: Rein's tokens (`rein`) on the spectrum of the features.

SET (Yi et al., 2024, arXiv 2407.18568). With the discrete Fourier transform S of the patch tokens f over the image,
channel by channel, f <- f + g S^-1(D_2(|S|) exp(i D_1(arg S))). D_1 is Rein's W_f (delta + .) + b_f; D_2 is another one
with tokens and layers of its own, whose products are normalised over the tokens before the softmax.

Causal-Tune (Zhang et al., 2026, arXiv 2512.16567). With the orthonormal cosine transform X of f over the image, channel
by channel, f <- f + g X^-1(D((1 - m) X)); m, see `discarded`, takes out the lowest and a part of the highest
frequencies.

Both also as their public code has them, which is something else: `ReleasedSetTokens`, `ReleasedCausalTokens`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recyclelora.adapters.tokens.config import CausalTuneConfig, SetConfig
from recyclelora.adapters.tokens.rein import Rein, ReinTokens, attend, linear
from recyclelora.adapters.transformer import uniform

TINY = 1e-5
"""What the public code of SET puts in the place of smaller numbers."""


class SetTokens(ReinTokens):
    """All that SET adds to a transformer; the tokens of Rein's names refine the phase."""

    method = "set"

    def _extend(self, depth: int, num_tokens: int, patch_size: int, generator: torch.Generator) -> None:
        width = self.width
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.amplitude_tokens = nn.Parameter(uniform((depth, num_tokens, width), bound, generator))
        self.amplitude_to_feature = linear(width, width, generator)
        self.amplitude_to_amplitude = linear(width, width, generator)

    def refine(self, layer: int, features: Tensor) -> Tensor:
        """Patch tokens (B, h, w, c) after refined block ``layer`` -> the same shape."""
        spectrum = torch.fft.rfft2(_wide(features), dim=(1, 2))
        phase = torch.angle(torch.complex(spectrum.real, _imaginary(spectrum, features.shape[1:3])))
        refined = _wave(self._amplitude(layer, spectrum.abs()), _wide(self.delta(layer, phase)))
        delta: Tensor = torch.fft.irfft2(refined, s=features.shape[1:3], dim=(1, 2))
        return features + (self.scale * delta).to(features.dtype)

    def _amplitude(self, layer: int, amplitude: Tensor) -> Tensor:
        tokens = self.amplitude_tokens[layer].to(amplitude.dtype)
        layers = self.amplitude_to_feature, self.amplitude_to_amplitude
        return _wide(attend(amplitude, tokens, *layers, normalise=True))


class ReleasedSetTokens(SetTokens):
    """SET's public code: the transform runs over batch and channels, numbers below 1e-5 are lifted to it, also negative
    ones, and the inverse is not scaled as the transform was."""

    def refine(self, layer: int, features: Tensor) -> Tensor:
        """See :meth:`SetTokens.refine`; what one image becomes depends on the others."""
        batch, _, _, width = features.shape
        x = _wide(features).flatten(1, 2).transpose(0, 1)
        spectrum = torch.fft.fft2(x)
        amplitude = _lifted(spectrum.real.square() + spectrum.imag.square()).sqrt()
        phase = torch.atan2(spectrum.imag, _lifted(spectrum.real))
        refined = _wave(self._amplitude(layer, amplitude), _wide(self.delta(layer, phase)))
        delta: Tensor = torch.fft.irfft2(refined / math.sqrt(2 * width), s=(batch, width), norm="ortho")
        return features + (self.scale * delta).transpose(0, 1).reshape(features.shape).to(features.dtype)


class CausalTokens(ReinTokens):
    """All that Causal-Tune adds to a transformer."""

    method = "causal_tune"

    def refine(self, layer: int, features: Tensor) -> Tensor:
        """Patch tokens (B, h, w, c) after refined block ``layer`` -> the same shape."""
        height, width = features.shape[1:3]
        x = _wide(features)
        down, across = cosine_matrix(height, x), cosine_matrix(width, x)
        kept = (1 - discarded(height, width, x.device)).unsqueeze(-1)
        refined = _wide(self.delta(layer, kept * torch.einsum("uh,vw,bhwc->buvc", down, across, x)))
        delta = torch.einsum("uh,vw,buvc->bhwc", down, across, refined)
        return features + (self.scale * delta).to(features.dtype)


class ReleasedCausalTokens(CausalTokens):
    """Causal-Tune's public code: numbers (N, B, c) are read as (B, c, h, w), no gradient flows through the transform,
    and its inverse is the real part of a Fourier transform, of which 0 to 255 is kept."""

    def refine(self, layer: int, features: Tensor) -> Tensor:
        """See :meth:`CausalTokens.refine`; what one image becomes depends on the others."""
        batch, height, width, channels = features.shape
        mixed = _wide(features.detach()).flatten(1, 2).transpose(0, 1).reshape(batch, channels, height, width)
        down, across = cosine_matrix(height, mixed), cosine_matrix(width, mixed)
        spectrum = (1 - discarded(height, width, features.device)) * (down @ mixed @ across.T)
        refined = _wide(self.delta(layer, spectrum.reshape(-1, batch, channels)))
        delta: Tensor = torch.fft.ifft2(refined.reshape(mixed.shape), norm="ortho").real.clamp(0, 255)
        delta = delta.reshape(-1, batch, channels).transpose(0, 1).reshape(features.shape)
        return features + (self.scale * delta).to(features.dtype)


def cosine_matrix(size: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix (size, size) in dtype and device of ``like``: row u is
    sqrt(2 / size) cos(pi (2 i + 1) u / (2 size)), row 0 by sqrt(2) less."""
    places = torch.arange(size, dtype=torch.float64, device=like.device)
    rows = torch.cos(math.pi * (2 * places + 1) * places[:, None] / (2 * size)) * math.sqrt(2 / size)
    rows[0] *= math.sqrt(0.5)
    return rows.to(like.dtype)


def discarded(height: int, width: int, device: torch.device) -> Tensor:
    """m of Causal-Tune for frequencies (u, v), (height, width), with r = max(u, v), n = min(height, width).

    1 - 0.95 r / a up to a = floor(0.1 n); 0.01 up to b = floor(0.7 n); 0.3 (r - b) / (n - b) up to n; 0.5 beyond, where
    the sides differ.
    """
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    radius = torch.maximum(rows[:, None], columns).float()
    side = min(height, width)
    low, high = int(0.1 * side), int(0.7 * side)
    share = 0.3 * (radius - high) / (side - high)
    share = torch.where(radius > side, 0.5, share)
    share = torch.where(radius <= high, 0.01, share)
    return torch.where(radius <= low, 1 - 0.95 * radius / max(low, 1), share)


def _imaginary(spectrum: Tensor, size: torch.Size) -> Tensor:
    """The imaginary part (B, h, w // 2 + 1, c), exactly 0 where that of a real map is: else the sign of its rounding
    noise decides between the phases pi and -pi."""
    height, width = size
    rows, columns = torch.arange(spectrum.shape[1]), torch.arange(spectrum.shape[2])
    alone = ((2 * rows) % height == 0)[:, None] & ((2 * columns) % width == 0)
    return spectrum.imag.masked_fill(alone[:, :, None].to(spectrum.device), 0.0)


def _wave(amplitude: Tensor, phase: Tensor) -> Tensor:
    """amplitude exp(i phase) of real tensors; the gradient of torch.polar is wrong where an amplitude is negative."""
    return torch.complex(amplitude * phase.cos(), amplitude * phase.sin())


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: what a transform takes, and what all of a map adds up in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _lifted(x: Tensor) -> Tensor:
    return torch.where(x.abs() < TINY, TINY, x)


class PatchGrid:
    """The patches (h, w) of the images that a transformer is seeing; a hook before its patch embedding."""

    size: tuple[int, int]

    def note(self, embedding: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Before a forward of ``embedding`` with images (B, 3, H, W)."""
        height, width = arguments[0].shape[-2:]
        patch: Any = embedding.patch_size
        self.size = height // patch[0], width // patch[1]


@dataclass(frozen=True, eq=False)
class MapRefinement:
    """The forward hook of one block: refines the patches, the last tokens, as a map."""

    tokens: ReinTokens
    layer: int
    grid: PatchGrid

    def __call__(self, block: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        """Output of the block, (B, others + h * w, c) or (B, h, w, c) -> the same shape, refined."""
        if output.ndim == 4:
            return self.tokens.refine(self.layer, output)
        height, width = self.grid.size
        others, patches = output[:, : -height * width], output[:, -height * width :]
        refined = self.tokens.refine(self.layer, patches.reshape(len(patches), height, width, -1))
        return torch.cat([others, refined.flatten(1, 2)], dim=1)


@dataclass(frozen=True)
class Spectral(Rein):
    """What SET and Causal-Tune share as methods: hooks that know the map of the patches."""

    def check(self, model: nn.Module) -> dict[int, nn.Module]:
        """See `method.Method`; gives the blocks that will be refined, by number."""
        if not hasattr(model, "patch_embed"):
            raise ValueError("a spectrum needs a map of patches: this model has no patch_embed")
        return super().check(model)

    def _attach(self, model: nn.Module, tokens: ReinTokens, chosen: Mapping[int, nn.Module]) -> None:
        grid, embedding = PatchGrid(), model.get_submodule("patch_embed")
        embedding.register_forward_pre_hook(grid.note)
        for layer, block in enumerate(chosen.values()):
            block.register_forward_hook(MapRefinement(tokens, layer, grid))


@dataclass(frozen=True)
class SET(Spectral):
    """SET as a method; it adds ``model.set`` and a hook to every refined block."""

    options: SetConfig

    def _kind(self) -> type[ReinTokens]:
        return ReleasedSetTokens if self.options.form == "released" else SetTokens


@dataclass(frozen=True)
class CausalTune(Spectral):
    """Causal-Tune as a method; it adds ``model.causal_tune`` and a hook to every refined block."""

    options: CausalTuneConfig

    def _kind(self) -> type[ReinTokens]:
        return ReleasedCausalTokens if self.options.form == "released" else CausalTokens
