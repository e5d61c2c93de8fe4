"""``format=onnx``: the segmenter as an ONNX graph, checked with onnxruntime, and what low precision costs in mIoU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.export import ExportedProgram

from recyclelora.config.commands import ExportConfig
from recyclelora.data.datasets import seeded_subset
from recyclelora.data.labels import IGNORE
from recyclelora.data.open import open_all
from recyclelora.evaluation.metrics import ConfusionMatrix, mean_iou
from recyclelora.exchange.exports import loader
from recyclelora.exchange.exports.agreement import FLOAT16, FLOAT32, WEIGHTS8, Agreement, ExportReport, compare_programs
from recyclelora.exchange.exports.bundle import PROBABILITIES, SCORES, write_bundle
from recyclelora.exchange.exports.source import Source
from recyclelora.exchange.exports.tracing import Traced, default_size, quiet, reason_of, trace
from recyclelora.system.errors import UserError, first_line

INT8 = "int8"
AXES = ("batch", "height", "width")
PRECISIONS = {
    "fp32": (torch.float32, FLOAT32), "fp16": (torch.float16, FLOAT16), INT8: (torch.float32, WEIGHTS8),
}  # fmt: skip


def write(source: Source, folder: Path, config: ExportConfig) -> ExportReport:
    """Write ``segmenter.onnx``, ``probabilities.onnx``, ``segmenter.json``, ``load.py`` and ``README.md``.

    Its precision is that of backbone and decoder; images and scores are float32. With ``int8`` the weights of matrix
    products are 8-bit integers, one scale a column, and their inputs are quantised as they come.

    Raises:
        UserError: a size that cannot be, or a precision that costs too much mIoU.
    """
    precision = config.precision
    dtype, tolerance = PRECISIONS[precision]
    traced = trace(source, config.image_size, dtype)
    remark = traced.remark
    try:
        checks = _write(source, traced, precision, folder)
    except Exception as error:  # converter and onnxruntime raise whatever they run into
        if traced.size is not None:
            raise UserError(f"format=onnx: the model cannot be converted: {reason_of(error)}") from error
        fixed = default_size(source)
        remark = f"as ONNX for images of {fixed[0]}x{fixed[1]} only: {reason_of(error)}"
        traced = trace(source, fixed, dtype)
        checks = _write(source, traced, precision, folder)
    details: dict[str, Any] = {"precision": precision, **traced.open}
    if precision != "fp32":
        cost = lost(source, loader.Segmenter(folder), traced.size)
        if isinstance(cost, str):
            remark = "; ".join(filter(None, [remark, cost]))
        else:
            details["miou"] = cost
    return ExportReport(checks, tolerance, details, remark)


def _write(source: Source, traced: Traced, precision: str, folder: Path) -> list[Agreement]:
    """Write all files and run them."""
    convert(traced.scores, "images", "scores", folder / f"{SCORES}.onnx")
    if precision == INT8:
        quantise(folder / f"{SCORES}.onnx")
    convert(traced.probabilities, "scores", "probabilities", folder / f"{PROBABILITIES}.onnx")
    write_bundle(source, traced, precision, folder, f"{SCORES}.onnx", "onnxruntime")
    return compare_programs(source, traced, folder)


def quantise(path: Path) -> None:
    """Replace a graph by the one with 8-bit weights in its matrix products; convolutions stay as they are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_name(f"float-{path.name}")
    path.rename(whole)
    with quiet():
        quantize_dynamic(whole, path, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
                         weight_type=QuantType.QInt8)  # fmt: skip
    whole.unlink()


def convert(program: ExportedProgram, given: str, result: str, path: Path) -> None:
    """Write a traced program of one tensor ``given`` and one ``result`` (batch, channels, height, width) as ONNX.

    Weights above 2 GB lie beside it. Open axes get their plain names.
    """
    with quiet():
        converted = torch.onnx.export(program, dynamo=True, input_names=[given], output_names=[result], verbose=False)
    assert converted is not None
    for value in (*converted.model.graph.inputs, *converted.model.graph.outputs):
        assert value.shape is not None
        for axis, name in zip((0, 2, 3), AXES, strict=True):
            if not isinstance(value.shape[axis], int):
                value.shape[axis] = name
    for node in converted.model.graph.all_nodes():
        node.metadata_props.clear()  # names of this project's modules and files
    converted.save(path)


IMAGES = 16
"""As many are drawn."""
MOST_LOST = 0.01
"""mIoU that a precision may cost; an export that loses more is not written."""


class Predicts(Protocol):
    """Anything that segments an image as the export's ``load.py`` does."""

    def predict(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class ids (H, W) and confidence of a uint8 RGB image (H, W, 3)."""


def lost(source: Source, exported: Predicts, size: tuple[int, int] | None = None) -> dict[str, Any] | str:
    """mIoU between 0 and 1 of both models, and the difference; why it cannot be known where the data are not there.

    Args:
        source: what is exported
        exported: the export
        size: (H, W) to which it pads images; None takes any

    Raises:
        UserError: it loses more than `MOST_LOST`.
    """
    config = source.run.config
    try:
        (dataset,) = open_all([config.data.source_val], config.data, config.cache)
        sample = config.data.protocol.prepared(seeded_subset(dataset, IMAGES, 0))
        counts = [ConfusionMatrix(len(config.data.classes.names), IGNORE) for _ in range(2)]
        whole, padded = config.data.protocol.mode == "whole", ""
        for index in range(len(sample)):
            one = sample.load(index)
            height, width = one.image.shape[:2]
            if whole and size is not None and (height > size[0] or width > size[1]):
                raise UserError(f"an image of {height}x{width} is larger than {size[0]}x{size[1]}")
            if whole and size is not None and (height, width) != size:
                padded = f"; an image of {height}x{width} is padded to {size[0]}x{size[1]}: size=[{height},{width}]"
            counts[0].update(one.label, source.run.predict(one.image).ids)
            counts[1].update(one.label, exported.predict(one.image)[0])
    except UserError as error:
        return f"what it costs in mIoU was not measured: {first_line(error)}"
    before, after = (mean_iou(count.iou()) for count in counts)
    if before is None or after is None:
        return "what it costs in mIoU was not measured: source validation has no labelled pixel"
    if before - after > MOST_LOST:
        raise UserError(
            f"the export loses {100 * (before - after):.1f} points of mIoU on {len(sample)} images of source "
            f"validation ({100 * before:.1f} to {100 * after:.1f} %); allowed: {100 * MOST_LOST:g}; "
            f"not written{padded}"
        )
    return {"images": len(sample), "run": before, "export": after, "lost": before - after}
