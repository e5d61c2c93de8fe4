"""The segmenter as a graph of plain operations, for ``format=segmenter`` and ``format=onnx``."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from recyclelora.errors import UserError
from recyclelora.exports import loader
from recyclelora.exports.agreement import Agreement, compare_scores, probe
from recyclelora.exports.source import Source
from recyclelora.inference import AUTOCAST
from recyclelora.storage import read_json, write_json

SCORES, PROBABILITIES = "segmenter", "probabilities"
"""Names of the two programs."""
LEAST_PATCHES = 2
"""Along each side of an image: torch traces a side of 1 as a constant."""
TRACED_PATCHES = (4, 6)
MOST = 1 << 16


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
        self.precision = precision
        self.register_buffer("mean", source.plain.mean)
        self.register_buffer("std", source.plain.std)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, num_classes, H, W)."""
        normalised = ((images - self.mean) / self.std).to(self.precision)
        scores: Tensor = self.decoder(self.backbone(normalised), (images.shape[-2], images.shape[-1]))
        return scores.float()


class Probabilities(nn.Module):
    """Scores (1, num_classes, H, W) -> probabilities of the classes."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.probabilities: Callable[[Tensor], Tensor] = decoder.probabilities  # type: ignore[assignment]

    def forward(self, scores: Tensor) -> Tensor:
        """Probabilities (1, num_classes, H, W)."""
        return self.probabilities(scores)


@dataclass(frozen=True)
class Traced:
    """The graph of a segmenter.

    Attributes:
        scores, probabilities: the two programs.
        size: (H, W), the only size that ``scores`` takes, or None.
        multiple: of what its sides must be.
        remark: why the size is fixed although none was asked for.
    """

    scores: ExportedProgram
    probabilities: ExportedProgram
    size: tuple[int, int] | None
    multiple: int
    remark: str | None = None


def trace(source: Source, size: tuple[int, int] | None, precision: torch.dtype = torch.float32) -> Traced:
    """Trace the merged segmenter for one image size, or for all; the batch is open.

    Where a part of the model cannot be traced for all sizes, the size is that of the test protocol's windows, or of the
    training crop.

    Raises:
        UserError: a size that the model or the run's test protocol cannot be used with.
    """
    portable, patch = Portable(source, precision), source.adapted.patch_size
    remark = None
    if size is None:
        try:
            return Traced(_dynamic(portable, patch), _probabilities(source), None, patch)
        except Exception as error:  # tracing raises whatever the model's code runs into
            remark = f"not all sizes can be traced: {str(error).strip().splitlines()[0]}"
            size = default_size(source)
    _check_size(source, size)
    program = _traced(portable, torch.zeros(2, 3, *size), {0: Dim("batch", min=1, max=MOST)})
    return Traced(program, _probabilities(source), size, patch, remark)


def default_size(source: Source) -> tuple[int, int]:
    """The size that most images have: a window's, or else the training crop's; in whole patches."""
    protocol, patch = source.run.config.data.protocol, source.adapted.patch_size
    height, width = (protocol.window, protocol.window) if protocol.mode == "slide" else source.image_size
    return -(-height // patch) * patch, -(-width // patch) * patch


def describe(source: Source, traced: Traced, precision: str) -> dict[str, Any]:
    """The content of ``segmenter.json``."""
    data, patch = source.run.config.data, source.adapted.patch_size
    resolved = read_json(source.run.run_dir / "run.json")["precision"]
    autocast = AUTOCAST.get(resolved)
    return source.about | {
        "backbone": source.backbone.name,
        "images": {
            "values": "RGB, 0 to 255, float32 (B, 3, H, W); normalised inside",
            "size": traced.size, "multiple": traced.multiple, "least": LEAST_PATCHES * patch,
            "mean": source.plain.mean.flatten().tolist(), "std": source.plain.std.flatten().tolist(),
        },
        "precision": precision,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
        "protocol": {name: getattr(data.protocol, name) for name in ("name", "mode", "window", "stride")},
        "classes": {name: getattr(data.classes, name) for name in ("names", "colours", "ignore_index")},
    }  # fmt: skip


def write_loader(folder: Path, about: dict[str, Any]) -> None:
    """Write ``segmenter.json`` and ``load.py``."""
    write_json(folder / "segmenter.json", about)
    shutil.copyfile(loader.__file__, folder / "load.py")


def compare_programs(source: Source, traced: Traced, folder: Path) -> list[Agreement]:
    """What ``load.py`` gives at several sizes against the adapted segmenter, both in the precision of the weights."""
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


def _dynamic(portable: Portable, patch: int) -> ExportedProgram:
    sides = [patch * Dim(name, min=LEAST_PATCHES, max=MOST) for name in ("rows", "columns")]
    images = torch.zeros(2, 3, *(patch * count for count in TRACED_PATCHES))
    return _traced(portable, images, {0: Dim("batch", min=1, max=MOST), 2: sides[0], 3: sides[1]})


def _probabilities(source: Source) -> ExportedProgram:
    scores = torch.zeros(1, len(source.run.config.data.classes.names), 8, 12)
    return _traced(Probabilities(source.plain.decoder), scores, {2: Dim("height", max=MOST), 3: Dim("width", max=MOST)})


@torch.no_grad()
def _traced(module: nn.Module, example: Tensor, dynamic: dict[int, Any]) -> ExportedProgram:
    """Trace, and forget what is of this machine: paths of source files, and that tensors were float32 on a CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (example,), dynamic_shapes=(dynamic,))
    for node in list(program.graph.nodes):
        node.meta.pop("stack_trace", None)
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # fails under autocast and on a GPU
            program.graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _check_size(source: Source, size: tuple[int, int]) -> None:
    protocol, patch = source.run.config.data.protocol, source.adapted.patch_size
    shown = f"size=[{size[0]},{size[1]}]"
    if any(side % patch or side < LEAST_PATCHES * patch for side in size):
        raise UserError(f"{shown}: sides must be multiples of patch {patch}, at least {LEAST_PATCHES * patch}")
    if protocol.mode == "slide" and min(size) < protocol.window:
        raise UserError(f"{shown}: the run's protocol {protocol.name} looks at windows of {protocol.window} pixels")
