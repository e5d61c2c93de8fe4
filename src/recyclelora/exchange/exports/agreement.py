"""Does an export compute what the adapted model computes? One that does not is not written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recyclelora.exchange.exports import loader
from recyclelora.exchange.exports.source import Source
from recyclelora.exchange.exports.tracing import Traced, default_size
from recyclelora.system.errors import UserError


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from the adapted model in float32.

    Attributes:
        relative: largest difference, relative to the largest magnitude.
        equal_pixels: share of pixels of the same class.
    """

    relative: float
    equal_pixels: float


FLOAT32 = Tolerance(relative=1e-4, equal_pixels=0.999)
FLOAT16 = Tolerance(relative=2e-2, equal_pixels=0.98)
WEIGHTS8 = Tolerance(relative=0.3, equal_pixels=0.9)
"""On made-up images; what counts is the mIoU that 8-bit weights cost."""


@dataclass(frozen=True)
class Agreement:
    """One comparison; ``equal_pixels`` is None where features and not scores were compared."""

    input: tuple[int, ...]
    max_abs_difference: float
    largest: float
    equal_pixels: float | None = None

    def within(self, tolerance: Tolerance) -> bool:
        """Whether this is close enough; NaN never is."""
        close = self.max_abs_difference <= tolerance.relative * self.largest
        return close and (self.equal_pixels is None or self.equal_pixels >= tolerance.equal_pixels)

    def __str__(self) -> str:
        height, width = self.input[-2:]
        pixels = "" if self.equal_pixels is None else f", {self.equal_pixels:.4%} of the pixels equal"
        return f"at {height}x{width}: max abs difference {self.max_abs_difference:.2g} of {self.largest:.3g}{pixels}"


@dataclass(frozen=True)
class ExportReport:
    """What an export tells of itself.

    Attributes:
        checks: comparisons of what was written, loaded again, with the adapted model.
        tolerance: that all of them must keep.
        details: further facts for the report.
        remark: what the user must know, if anything.
    """

    checks: Sequence[Agreement]
    tolerance: Tolerance
    details: dict[str, Any] = field(default_factory=dict)
    remark: str | None = None

    def verify(self) -> None:
        """Raise a UserError unless every comparison is within the tolerance."""
        for check in self.checks:
            if not check.within(self.tolerance):
                t = self.tolerance
                allowed = f"{t.relative:g} of the largest value, {t.equal_pixels:.1%} equal pixels"
                raise UserError(f"the export disagrees with the adapted model {check}; allowed: {allowed}; not written")

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        checks = [asdict(check) for check in self.checks]
        return {**self.details, "remark": self.remark, "tolerance": asdict(self.tolerance), "checks": checks}


def compare_features(images: Tensor, expected: Sequence[Tensor], found: Sequence[Tensor]) -> Agreement:
    """Compare the maps of all levels."""
    difference = torch.stack([(a - b).abs().max() for a, b in zip(expected, found, strict=True)]).max()  # keeps NaN
    largest = torch.stack([a.abs().max() for a in expected]).max()
    return Agreement(tuple(images.shape), difference.item(), largest.item())


def compare_scores(images: Tensor, expected: Tensor, found: Tensor) -> Agreement:
    """Compare scores (B, num_classes, H, W)."""
    equal = (expected.argmax(1) == found.argmax(1)).float().mean().item()
    difference = (expected - found).abs().max().item()
    return Agreement(tuple(images.shape), difference, expected.abs().max().item(), equal)


def probe(count: int, size: tuple[int, int]) -> Tensor:
    """Seeded images (count, 3, H, W) with values 0 to 255: coloured shades with some noise."""
    generator = torch.Generator().manual_seed(0)
    shades = F.interpolate(torch.rand(count, 3, 5, 7, generator=generator), size, mode="bicubic", align_corners=False)
    noise = torch.randn(count, 3, *size, generator=generator)
    return (255 * shades + 8 * noise).round().clamp(0, 255)


def compare_programs(source: Source, traced: Traced, folder: Path) -> list[Agreement]:
    """What ``load.py`` gives at one or two sizes against the adapted segmenter in float32."""
    opened = loader.Segmenter(folder, autocast=False)
    patch = source.adapted.patch_size
    sizes = [traced.size or default_size(source)]
    sizes += [] if traced.size else [(3 * patch, 5 * patch + 1)]
    checks = []
    for size in sizes:
        images = probe(2, size)
        with torch.inference_mode():
            expected = source.run.segmenter.logits(images)
        checks.append(compare_scores(images, expected, torch.from_numpy(opened.batch_scores(images.numpy()))))
    return checks
