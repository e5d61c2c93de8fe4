"""The load.py that goes with a segmenter, on programs that are easy to follow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from recyclelora.data.reading import read_upright
from recyclelora.exchange.exports import loader
from recyclelora.exchange.exports.loader import Segmenter
from recyclelora.models import segmenter

MEAN = [100.5, 110.25, 120.0]
IMAGES = {"batch": None, "size": None, "multiple": 16, "least": 32, "mean": MEAN}
SLIDE = {"mode": "slide", "window": 64, "stride": 48}


def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol=SLIDE, **images) -> tuple[Segmenter, list]:
    """A segmenter whose scores are the colours themselves, and the batches that it was asked for."""
    classes = {"names": ["red", "green", "blue"], "colours": [[255, 0, 0], [0, 255, 0], [0, 0, 255]]}
    about = {"images": IMAGES | images, "protocol": protocol, "autocast": None}
    (tmp_path / "segmenter.json").write_text(json.dumps(about | {"classes": classes | {"ignore_index": 255}}))
    batches: list[np.ndarray] = []

    def run(batch: np.ndarray) -> np.ndarray:
        batches.append(batch)
        return batch

    monkeypatch.setattr(loader, "_torch_program", lambda path, device, autocast: run)
    return Segmenter(tmp_path), batches


@pytest.mark.parametrize("turn", range(1, 9))
def test_files_are_read_upright_as_the_platform_reads_them(tmp_path, turn: int):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(picture(24, 40)).save(tmp_path / "a.jpg", exif=exif)
    read = loader.read_image(tmp_path / "a.jpg")
    assert read.shape == ((40, 24, 3) if turn > 4 else (24, 40, 3)) and read.dtype == np.uint8
    np.testing.assert_array_equal(read, read_upright(tmp_path / "a.jpg"))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (96, 192), (97, 131), (30, 200), (5, 7)])
def test_windows_are_the_platforms(size):
    for window, stride in ((64, 48), (64, 64), (32, 5)):
        assert list(loader.windows(size, window, stride)) == list(segmenter.windows(size, window, stride))


@pytest.mark.parametrize("size", [(96, 192), (97, 131), (30, 200), (5, 7)])
def test_every_pixel_is_the_mean_of_its_windows(tmp_path, monkeypatch, size):
    model, batches = opened(tmp_path, monkeypatch)
    image = picture(*size)
    np.testing.assert_array_equal(model.scores(image)[0], image.transpose(2, 0, 1))  # means of equal values
    assert all(len(batch) <= 4 and batch.dtype == np.float32 for batch in batches)
    assert all(side % 16 == 0 and side >= 32 for batch in batches for side in batch.shape[-2:])


def test_padding_is_the_mean_colour(tmp_path, monkeypatch):
    model, batches = opened(tmp_path, monkeypatch, protocol={"mode": "whole"})
    image = picture(33, 47)
    np.testing.assert_array_equal(model.scores(image)[0], image.transpose(2, 0, 1))
    (batch,) = batches
    assert batch.shape == (1, 3, 48, 48)
    np.testing.assert_array_equal(batch[0, :, 33:, :], np.broadcast_to(np.float32(MEAN)[:, None, None], (3, 15, 48)))
    np.testing.assert_array_equal(batch[0, :, :, 47], np.broadcast_to(np.float32(MEAN)[:, None], (3, 48)))


def test_a_fixed_size(tmp_path, monkeypatch):
    model, batches = opened(tmp_path, monkeypatch, size=[64, 80])
    model.scores(picture(40, 100))
    assert {batch.shape[-2:] for batch in batches} == {(64, 80)}
    with pytest.raises(ValueError, match="takes images up to 64x80 pixels, not 65x80"):
        model.batch_scores(np.zeros((1, 3, 65, 80), np.float32))


def test_a_batch_of_one(tmp_path, monkeypatch):
    model, batches = opened(tmp_path, monkeypatch, batch=1)
    image = picture(97, 131)
    np.testing.assert_array_equal(model.scores(image)[0], image.transpose(2, 0, 1))
    assert {len(batch) for batch in batches} == {1}


def test_ids_confidence_and_colours(tmp_path, monkeypatch):
    model, _ = opened(tmp_path, monkeypatch)
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, :24, 1], image[:, 24:, 2] = 7, 9
    ids, confidence = model.predict(image)
    assert ids.dtype == np.uint8 and (ids[:, :24] == 1).all() and (ids[:, 24:] == 2).all()
    assert (confidence[:, :24] == 7).all() and (confidence[:, 24:] == 9).all()
    assert (model.colours(ids)[0, 0] == [0, 255, 0]).all() and (model.colours(ids + 200) == 0).all()
    assert model.classes == ["red", "green", "blue"] and model.ignore_index == 255


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_what_is_no_image_is_refused(tmp_path, monkeypatch, image):
    with pytest.raises(ValueError, match=r"expected a uint8 RGB image \(H, W, 3\), got"):
        opened(tmp_path, monkeypatch)[0].predict(image)


def test_onnxruntime_runs_where_it_is_told_or_not_at_all(tmp_path):
    about = {"images": IMAGES, "protocol": SLIDE, "autocast": None, "classes": {}}
    about["classes"] = {"names": ["red", "green", "blue"], "ignore_index": 255}
    (tmp_path / "segmenter.json").write_text(json.dumps(about))
    shape = ["batch", 3, "height", "width"]
    given, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("images", "scores"))
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["scores"])], "g", [given], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for name in ("segmenter", "probabilities"):
        onnx.save(model, tmp_path / f"{name}.onnx")
    image = picture(96, 128)
    for options in ({}, {"providers": ["CPUExecutionProvider"]}, {"providers": [("CPUExecutionProvider", {})]}):
        np.testing.assert_array_equal(Segmenter(tmp_path, **options).scores(image)[0], image.transpose(2, 0, 1))
    for options in ({"device": "cuda"}, {"providers": ["CUDAExecutionProvider"]}):
        with pytest.raises(
            ValueError, match=r"CUDAExecutionProvider: this onnxruntime has .*CPUExecutionProvider only"
        ):
            Segmenter(tmp_path, **options)
    with pytest.raises(ValueError, match="device='mps': onnxruntime has cpu and cuda; name others as providers"):
        Segmenter(tmp_path, device="mps")
    assert loader.providers_of("cuda:1")[0] == ("CUDAExecutionProvider", {"device_id": 1})


@pytest.mark.parametrize("together", [1, 3])
def test_so_many_windows_are_looked_at_together(tmp_path, monkeypatch, together):
    model, batches = opened(tmp_path, monkeypatch)
    model.batch = together
    model.scores(picture(96, 192))
    assert {len(batch) for batch in batches} <= {together, 8 % together or together}
