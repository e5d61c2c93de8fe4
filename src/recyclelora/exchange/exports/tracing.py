"""From a segmenter to a graph of plain operations, for as many batch and image sizes as its code allows."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from recyclelora.data.protocol import ProtocolConfig
from recyclelora.exchange.exports.source import Source
from recyclelora.models.segmenter import entering
from recyclelora.system.errors import UserError, first_line

LEAST_PATCHES = 2
"""Along each side of an image: torch traces a side of 1 as a constant."""
TRACED_PATCHES = (4, 6)
MOST = 1 << 16

Size = tuple[int, int]


@dataclass(frozen=True)
class Traced:
    """The graph of a segmenter.

    Attributes:
        scores, probabilities: the two programs.
        batch: the only number of images that ``scores`` takes, or None.
        size: (H, W), the only size of them, or None.
        remark: what could not be had, and why.
    """

    scores: ExportedProgram
    probabilities: ExportedProgram
    batch: int | None
    size: Size | None
    remark: str | None = None

    @property
    def open(self) -> dict[str, Any]:
        """Batch and size as a report tells them."""
        return {"batch": self.batch or "dynamic", "size": self.size or "dynamic"}


def trace(source: Source, size: Size | None, precision: torch.dtype = torch.float32) -> Traced:
    """Trace the merged segmenter, for one image size or all, with an open batch.

    Where code of the model cannot be traced so, the batch is 1, or the size is that of the test protocol's windows (of
    the training crop without them); where it cannot compute in ``precision``, the decoder keeps float32.

    Raises:
        UserError: a size that the model or the run's test protocol cannot be used with.
    """
    if size is not None:
        check_size(source, size)
    patch = source.adapted.patch_size
    portable = Portable(source, precision)
    remarks = [
        portable.ensure_computable(torch.zeros(1, 3, *(patch * count for count in TRACED_PATCHES))),
        _augmentation(source.run.config.data.protocol),
    ]
    reasons: list[str] = []
    for batch, fixed in _wishes(source, size):
        try:
            program = _traced(portable, *_example(batch, fixed, patch))
        except Exception as error:  # tracing raises whatever the model's code runs into
            reasons.append(reason_of(error))
            continue
        if reasons:
            remarks.append(f"traced for {_shown(batch, fixed)} only: {reasons[0]}")
        remark = "; ".join(filter(None, remarks)) or None
        return Traced(program, _probabilities(source), batch, fixed, remark)
    raise UserError(f"the model cannot be traced: {reasons[-1]}")


def _augmentation(protocol: ProtocolConfig) -> str | None:
    """What of the run's scoring a program for one image leaves out."""
    if not protocol.augmented:
        return None
    return f"looks at each image once: without the protocol's scales={list(protocol.scales)} and flip={protocol.flip}"


def check_size(source: Source, size: Size) -> None:
    """Raise a UserError for a size that the model or the protocol's windows do not fit."""
    protocol, patch = source.run.config.data.protocol, source.adapted.patch_size
    shown = f"size=[{size[0]},{size[1]}]"
    if any(side % patch for side in size):
        raise UserError(f"{shown}: sides must be multiples of patch {patch}")
    if protocol.mode == "slide" and min(size) < protocol.window:
        raise UserError(f"{shown}: the run's protocol {protocol.name} looks at windows of {protocol.window} pixels")


def default_size(source: Source) -> Size:
    """The size that most images have: a window's, or else the training crop's; in whole patches."""
    protocol, patch = source.run.config.data.protocol, source.adapted.patch_size
    height, width = (protocol.window, protocol.window) if protocol.mode == "slide" else source.image_size
    return -(-height // patch) * patch, -(-width // patch) * patch


def _wishes(source: Source, size: Size | None) -> Iterator[tuple[int | None, Size | None]]:
    """(batch, size) in the order in which they are tried; None leaves one open."""
    for wanted in (size,) if size else (None, default_size(source)):
        yield None, wanted
        yield 1, wanted


def _example(batch: int | None, size: Size | None, patch: int) -> tuple[Tensor, dict[int, Any]]:
    """Images to trace with, and which of their dimensions stay open."""
    dynamic: dict[int, Any] = {} if batch else {0: Dim("batch", min=1, max=MOST)}
    if size is None:
        dynamic |= {2 + i: patch * Dim(n, min=LEAST_PATCHES, max=MOST) for i, n in enumerate(("rows", "columns"))}
    shown = size or (patch * TRACED_PATCHES[0], patch * TRACED_PATCHES[1])
    return torch.zeros(batch or 2, 3, *shown), dynamic


def _probabilities(source: Source) -> ExportedProgram:
    scores = torch.zeros(1, len(source.run.config.data.classes.names), 8, 12)
    return _traced(Probabilities(source.plain.decoder), scores, {2: Dim("height", max=MOST), 3: Dim("width", max=MOST)})


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch and onnxscript tell of their own work, failed attempts included, from the user."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def _traced(module: nn.Module, example: Tensor, dynamic: dict[int, Any]) -> ExportedProgram:
    """Trace, and forget what is of this machine: paths of source files, and that tensors were float32 on a CPU."""
    with quiet():
        program = torch.export.export(module, (example,), dynamic_shapes=(dynamic,))
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # fails under autocast and on a GPU
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def reason_of(error: Exception) -> str:
    """What is wrong, without the advice that follows it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # torch's own first line only says that constraints are violated
    line = lines[1].strip(" -") if len(lines) > 1 and lines[0].startswith("Constraints violated") else lines[0]
    return line.partition(". ")[0]


def _shown(batch: int | None, size: Size | None) -> str:
    parts = [f"a batch of {batch}"] if batch else []
    return " and ".join(parts + ([f"images of {size[0]}x{size[1]}"] if size else []))


class Portable(nn.Module):
    """Float images (B, 3, H, W) with values 0 to 255, sides multiples of the patch size -> float32 scores.

    ``precision`` is that of backbone and decoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, source: Source, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        plain = source.plain if precision == torch.float32 else copy.deepcopy(source.plain)
        self.backbone, self.decoder = plain.backbone.to(precision), plain.decoder.to(precision)
        self.precision = self.decoder_precision = precision
        self.register_buffer("mean", source.plain.mean)
        self.register_buffer("std", source.plain.std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, num_classes, H, W)."""
        normalised = ((images - self.mean) / self.std).to(self.precision)
        features = [level.to(self.decoder_precision) for level in entering(self.decoder, self.backbone, normalised)]
        scores: Tensor = self.decoder(features, (images.shape[-2], images.shape[-1]))
        return scores.float()

    @torch.no_grad()
    def ensure_computable(self, images: Tensor) -> str | None:
        """Keep the decoder in float32 where it cannot compute in ``precision``; says why."""
        try:
            self(images)
        except RuntimeError as error:  # of mixed types, or an operation without a kernel
            if self.decoder_precision == torch.float32:
                raise
            self.decoder.float()
            self.decoder_precision = torch.float32
            return f"the decoder stays in float32: {first_line(error)}"
        return None


class Probabilities(nn.Module):
    """Scores (1, num_classes, H, W) -> probabilities of the classes."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        # A bound method, so that the decoder's weights do not become a part of this module.
        self.probabilities: Callable[[Tensor], Tensor] = decoder.probabilities  # type: ignore[assignment]

    def forward(self, scores: Tensor) -> Tensor:
        """Probabilities (1, num_classes, H, W)."""
        return self.probabilities(scores)
