"""``format=segmenter``: the folder alone predicts what the run predicts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import recyclelora
from recyclelora.exchange.exports import onnx as onnx_export
from recyclelora.exchange.exports import segmenter as segmenter_export
from recyclelora.exchange.exports.loader import Segmenter
from recyclelora.exchange.exports.source import Source
from recyclelora.models.decoders.decoder import DenseDecoder
from recyclelora.system.errors import UserError

from .conftest import PLAIN, TINY, asked, moved_source


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((96, 192), (71, 133), (40, 90))]


def test_the_folder_holds_no_pickle_and_nothing_of_this_machine(exported: Callable[[str], Path]):
    folder = exported("segmenter")
    for name in ("segmenter", "probabilities"):
        with zipfile.ZipFile(folder / f"{name}.pt2") as archive:
            for file in archive.namelist():
                content = archive.read(file)
                assert not content.startswith((b"PK", b"\x80")), file
                assert b"/home" not in content and str(Path(recyclelora.__file__).parent).encode() not in content
    about = json.loads((folder / "segmenter.json").read_text())
    assert about["images"]["size"] is None and about["images"]["multiple"] == 16
    assert about["images"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert about["protocol"] == {"name": "recyclelora", "mode": "slide", "window": 64, "stride": 48}
    assert about["classes"]["names"][0] == "road" and about["classes"]["ignore_index"] == 255
    assert (folder / "probabilities.pt2").stat().st_size < 50_000


@pytest.mark.slow
@pytest.mark.parametrize("method", [["adapter=frozen"], ["adapter=full"]])
def test_other_methods(tmp_path: Path, method: list[str]):
    source = moved_source(tmp_path, *PLAIN, *method)
    segmenter_export.write(source, tmp_path, asked()).verify()
    image = pictures()[1]
    np.testing.assert_array_equal(Segmenter(tmp_path).predict(image)[0], source.run.predict(image).ids)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", ["segmenter", "onnx"])
def test_queries_inside_the_backbone(tmp_path: Path, wanted: str):
    source = moved_source(tmp_path, *TINY, "decoder=eomt", "decoder.num_blocks=2", "decoder.num_queries=20")
    assert source.plain.decoder.inner_blocks.backbone is source.merged
    write = segmenter_export.write if wanted == "segmenter" else onnx_export.write
    outcome = write(source, tmp_path, asked())
    outcome.verify()
    assert outcome.details["batch"] == outcome.details["size"] == "dynamic" and outcome.remark is None, outcome
    image = pictures()[1]
    assert (Segmenter(tmp_path).predict(image)[0] == source.run.predict(image).ids).mean() > 0.99


def test_a_fixed_size(tmp_path: Path):
    source = moved_source(tmp_path, *TINY)
    outcome = segmenter_export.write(source, tmp_path, asked((64, 96)))
    outcome.verify()
    assert outcome.details == {"batch": "dynamic", "size": (64, 96)} and outcome.remark is None
    assert [check.input for check in outcome.checks] == [(2, 3, 64, 96)]
    image = pictures()[0]
    ids = Segmenter(tmp_path).predict(image)[0]
    assert (ids == source.run.predict(image).ids).mean() > 0.9  # windows of 64x64 are padded to 64x96


def test_that_test_time_augmentation_is_left_out_is_said(tmp_path: Path):
    source = moved_source(tmp_path, *TINY, "data.protocol.flip=true")
    outcome = segmenter_export.write(source, tmp_path, asked((64, 64)))
    assert outcome.remark and "without the protocol's scales=[1.0] and flip=True" in outcome.remark


@pytest.mark.parametrize(
    ("size", "words"), [((64, 72), "multiples of patch 16"), ((48, 64), "protocol recyclelora looks at windows of 64")]
)
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, size: tuple[int, int], words: str):
    with pytest.raises(UserError, match=rf"size=\[{size[0]},{size[1]}\].*{words}"):
        segmenter_export.write(moved_source(tmp_path, *TINY), tmp_path, asked(size))


class Stubborn(DenseDecoder):
    """Knows what it does for some sizes only, or counts its images, and has probabilities of its own."""

    def __init__(self, inner: nn.Module, counting: bool) -> None:
        super().__init__()
        self.inner, self.counting = inner, counting

    def forward(self, features, size, query=None):
        if self.counting:
            return self.inner(features, size).sigmoid().expand(len(features[0]), -1, -1, -1)
        if size[0] == 64:
            return self.inner(features, size).sigmoid()
        return -self.inner(features, size).sigmoid()

    def probabilities(self, scores):
        return scores / scores.sum(1, keepdim=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counting", "open_", "words"),
    [
        (False, {"batch": "dynamic", "size": (64, 64)}, ("images of 64x64", "H and W are 64 and 64")),
        (True, {"batch": 1, "size": "dynamic"}, ("a batch of 1", "B is 1, H and W are multiples of 16, at least 32")),
    ],
)
def test_what_cannot_be_traced_for_all_is_fixed_and_said(tmp_path: Path, counting: bool, open_: dict, words: tuple):
    source = moved_source(tmp_path, *TINY)
    source.run.segmenter.decoder = Stubborn(source.run.segmenter.decoder, counting)
    outcome = segmenter_export.write(Source.of(source.run, "last"), tmp_path, asked())
    outcome.verify()
    assert outcome.details == open_
    assert outcome.remark.startswith(f"traced for {words[0]} only: ") and ". " not in outcome.remark
    image = pictures()[0]
    ids, confidence = Segmenter(tmp_path).predict(image)
    expected = source.run.predict(image)
    np.testing.assert_array_equal(ids, expected.ids)
    np.testing.assert_allclose(confidence, expected.confidence, atol=1e-6)
    assert words[1] in (tmp_path / "README.md").read_text()


def test_a_run_in_mixed_precision_predicts_in_mixed_precision(tmp_path: Path):
    from recyclelora.evaluation.load import TrainedModel, single_evaluator

    source = moved_source(tmp_path, *TINY)
    mixed = single_evaluator(source.run.config, torch.device("cpu"), "bf16-mixed")
    run = TrainedModel(tmp_path, source.run.config, source.run.segmenter, mixed, 1)
    (tmp_path / "run.json").write_text(json.dumps({"precision": "bf16-mixed"}))
    segmenter_export.write(Source.of(run, "last"), tmp_path, asked()).verify()
    image = pictures()[0]
    with torch.inference_mode():
        expected = mixed.scores(run.segmenter, [image]).numpy()
        exact = source.run.evaluator.scores(run.segmenter, [image]).numpy()
    found = Segmenter(tmp_path).scores(image)
    plain = Segmenter(tmp_path, autocast=False).scores(image)
    assert np.abs(plain - exact).max() < 1e-5 < np.abs(found - exact).max()
    assert np.abs(found - expected).max() < 0.01 * np.abs(exact).max()
