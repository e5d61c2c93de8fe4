"""``format=onnx``: onnxruntime gives the adapted model's scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import recyclelora
from recyclelora.exchange.exports import onnx as onnx_export
from recyclelora.exchange.exports.agreement import probe
from recyclelora.exchange.exports.loader import Segmenter
from recyclelora.exchange.exports.source import Source
from recyclelora.models.decoders.decoder import DenseDecoder
from recyclelora.system.errors import UserError

from .conftest import TINY, asked, moved_source
from .test_segmenter import pictures


def dimensions(path: Path) -> list[object]:
    (given,) = onnxruntime.InferenceSession(path).get_inputs()
    assert given.type == "tensor(float)"
    return given.shape


@pytest.mark.slow
def test_batch_and_size_are_open(finished: Path, exported: Callable[[str], Path]):
    folder, run = exported("onnx"), recyclelora.load(finished)
    assert dimensions(folder / "segmenter.onnx") == ["batch", 3, "height", "width"]
    assert dimensions(folder / "probabilities.onnx") == [1, 19, "height", "width"]
    (scores,) = onnxruntime.InferenceSession(folder / "segmenter.onnx").get_outputs()
    assert scores.shape == ["batch", 19, "height", "width"]
    session = onnxruntime.InferenceSession(folder / "segmenter.onnx")
    for count, size in ((1, (32, 32)), (3, (128, 80)), (5, (96, 192))):
        images = probe(count, size)
        with torch.inference_mode():
            expected = run.segmenter.logits(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_graph_is_valid_and_says_nothing_of_this_machine(exported: Callable[[str], Path]):
    folder = exported("onnx")
    for name in ("segmenter", "probabilities"):
        onnx.checker.check_model(folder / f"{name}.onnx")
        content = (folder / f"{name}.onnx").read_bytes()
        assert b"recyclelora" not in content and b"site-packages" not in content


@pytest.mark.slow
def test_half_precision_at_a_fixed_size(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    outcome = onnx_export.write(source, tmp_path, asked((64, 64), "fp16"))
    outcome.verify()
    (check,) = outcome.checks
    assert 0 < check.max_abs_difference < 5e-3 * check.largest and check.equal_pixels > 0.99
    assert dimensions(tmp_path / "segmenter.onnx")[1:] == [3, 64, 64]
    weights = onnx.load(tmp_path / "segmenter.onnx").graph.initializer
    matrices = [w for w in weights if len(w.dims) >= 2]
    assert {w.data_type for w in matrices if len(w.dims) == 2} == {onnx.TensorProto.FLOAT16}
    assert next(source.plain.parameters()).dtype == torch.float32  # the run's own model is left alone
    image = pictures()[0]
    assert (Segmenter(tmp_path).predict(image)[0] == source.run.predict(image).ids).mean() > 0.99


class Exact(DenseDecoder):
    """Multiplies features with a float32 tensor that nothing converts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.weight = inner, [torch.eye(32)]

    def forward(self, features, size, query=None):
        return self.inner([(f.permute(0, 2, 3, 1) @ self.weight[0]).permute(0, 3, 1, 2) for f in features], size)


@pytest.mark.slow
def test_a_decoder_that_needs_float32_keeps_it_and_that_is_said(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    source.run.segmenter.decoder = Exact(source.run.segmenter.decoder)
    outcome = onnx_export.write(Source.of(source.run, "last"), tmp_path, asked((64, 64), "fp16"))
    outcome.verify()
    assert outcome.remark.startswith("the decoder stays in float32: expected ")
    weights = onnx.load(tmp_path / "segmenter.onnx").graph.initializer
    assert {w.data_type for w in weights if w.dims} >= {onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT}


class Pooling(DenseDecoder):
    """Pools to a fixed grid, which torch traces for all sizes and its ONNX converter gets wrong."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features, size, query=None):
        pooled = [f + F.interpolate(F.adaptive_avg_pool2d(f, 3), f.shape[-2:]) for f in features]
        return self.inner(pooled, size)


@pytest.mark.slow
def test_what_onnxruntime_cannot_run_at_all_sizes_is_fixed_and_said(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    source.run.segmenter.decoder = Pooling(source.run.segmenter.decoder)
    outcome = onnx_export.write(Source.of(source.run, "last"), tmp_path, asked())
    outcome.verify()
    assert outcome.remark.startswith("as ONNX for images of 64x64 only: ")
    assert dimensions(tmp_path / "segmenter.onnx")[1:] == [3, 64, 64]
    image = pictures()[0]
    np.testing.assert_array_equal(Segmenter(tmp_path).predict(image)[0], source.run.predict(image).ids)


def test_what_cannot_be_converted_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no such operation\nand a long story")

    monkeypatch.setattr(onnx_export, "convert", fail)
    with pytest.raises(UserError, match=r"format=onnx: the model cannot be converted: no such operation$"):
        onnx_export.write(moved_source(tmp_path, *TINY), tmp_path, asked((64, 64), "fp32"))


@pytest.mark.slow
def test_half_precision_at_any_size(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    onnx_export.write(source, tmp_path, asked(precision="fp16")).verify()
    for image in pictures():
        assert (Segmenter(tmp_path).predict(image)[0] == source.run.predict(image).ids).mean() > 0.98
