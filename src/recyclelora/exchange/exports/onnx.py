"""``format=onnx``: the segmenter as an ONNX graph, checked with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from recyclelora.config.commands import ExportConfig
from recyclelora.exchange.exports import loader
from recyclelora.exchange.exports.accuracy import lost
from recyclelora.exchange.exports.agreement import FLOAT16, FLOAT32, WEIGHTS8, Agreement, ExportReport, compare_programs
from recyclelora.exchange.exports.bundle import PROBABILITIES, SCORES, write_bundle
from recyclelora.exchange.exports.source import Source
from recyclelora.exchange.exports.tracing import Traced, default_size, first_line, quiet, trace
from recyclelora.system.errors import UserError

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
            raise UserError(f"format=onnx: the model cannot be converted: {first_line(error)}") from error
        fixed = default_size(source)
        remark = f"as ONNX for images of {fixed[0]}x{fixed[1]} only: {first_line(error)}"
        traced = trace(source, fixed, dtype)
        checks = _write(source, traced, precision, folder)
    details: dict[str, Any] = {"precision": precision, **traced.open}
    if precision != "fp32":
        cost = lost(source, loader.Segmenter(folder))
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
