"""A finished run scored again, used on unlabelled images, and loaded in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, make_cityscapes, save_rgb
from PIL import Image

import recyclelora
from recyclelora.data.reading import read_image
from recyclelora.errors import UserError
from recyclelora.evaluate import evaluate
from recyclelora.predict import list_images, predict
from recyclelora.run import Run
from recyclelora.schemas import EvaluateConfig, PredictConfig


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One trained run; its folder and a function that composes configurations beside it."""
    from conftest import compose_config, make_gta

    folder = tmp_path_factory.mktemp("finished")
    make_cityscapes(make_gta(folder / "data"))
    config = compose_config(folder, *TINY)
    run = Run.identify(config, None)
    run.execute()
    return run.directory.path


def test_evaluating_again_gives_the_same_scores(finished: Path):
    evaluate(EvaluateConfig(run=str(finished)))
    result = json.loads((finished / "result.json").read_text())
    again = json.loads((finished / "evaluations/gta2city-recyclelora-last.json").read_text())
    assert again["iou_per_class"] == result["iou_per_class"]
    assert again["step"] == 4 and again["mean"] == result["miou"]["mean"]


def test_evaluating_other_targets_needs_no_source(finished: Path, tmp_path: Path):
    from conftest import compose_config

    make_cityscapes(tmp_path / "data", count=2)
    other = compose_config(tmp_path, *TINY).data
    mean = evaluate(EvaluateConfig(run=str(finished), data=other, checkpoint="best_source"))
    stored = json.loads((finished / "evaluations/gta2city-recyclelora-best_source.json").read_text())
    assert stored["mean"] == mean and set(stored["targets"]) == {"cityscapes"} and stored["source_val"] is None


def test_loaded_model_predicts_what_predict_writes(finished: Path, tmp_path: Path):
    source = finished.parents[2] / "data/cityscapes/leftImg8bit/val"
    predict(PredictConfig(run=str(finished), input=str(source), output=str(tmp_path)))
    model = recyclelora.load(finished)
    images = sorted(source.rglob("*.png"))
    assert len(images) == 3
    for path in images:
        name = path.relative_to(source)
        prediction = model.predict(read_image(path))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "ids" / name)), prediction.ids)
        confidence = np.asarray(Image.open(tmp_path / "confidence" / name))
        np.testing.assert_array_equal(confidence, (255 * prediction.confidence).astype(np.uint8))
        assert prediction.confidence.min() >= 1 / 19 and prediction.confidence.max() <= 1
        assert np.asarray(Image.open(tmp_path / "overlays" / name)).shape == (96, 192, 3)


def test_checkpoint_and_adapter_file_are_the_same_model(finished: Path):
    last, best = recyclelora.load(finished), recyclelora.load(finished, "best_source")
    for (name, a), (_, b) in zip(last.segmenter.named_parameters(), best.segmenter.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert last.step == best.step == 4


def test_an_unreadable_image_is_named_and_the_others_are_done(finished: Path, tmp_path: Path):
    save_rgb(tmp_path / "in/good.png", np.zeros((64, 80, 3), np.uint8))
    (tmp_path / "in/bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        predict(PredictConfig(run=str(finished), input=str(tmp_path / "in"), output=str(tmp_path / "out")))
    assert [p.name for p in (tmp_path / "out/ids").iterdir()] == ["good.png"]


def test_input_may_be_a_folder_an_image_or_a_list(tmp_path: Path):
    for name in ("a.png", "deep/b.png", "c.txt"):
        save_rgb((tmp_path / name).with_suffix(".png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "deep/._b.jpg").write_bytes(b"")  # as macOS writes beside every file
    assert set(list_images(str(tmp_path)).values()) == {"a", "deep/b", "c"}
    assert list(list_images(str(tmp_path / "a.png")).values()) == ["a"]
    assert set(list_images([str(tmp_path / "a.png"), str(tmp_path / "c.png")]).values()) == {"a", "c"}
    with pytest.raises(UserError, match="no such file or folder"):
        list_images(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in it"):
        list_images(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="would write the same files"):
        list_images([str(tmp_path / "a.png"), str(shutil.copy(tmp_path / "a.png", tmp_path / "empty"))])


def test_not_a_run_and_missing_checkpoints_are_named(finished: Path, tmp_path: Path):
    with pytest.raises(UserError, match="not a run directory"):
        recyclelora.load(tmp_path)
    copied = tmp_path / "copied"
    shutil.copytree(finished, copied)
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint 'best_target'"):
        recyclelora.load(copied, "best_target")
    recyclelora.load(copied)  # the adapter file alone is enough


def test_wrong_input_to_predict_is_refused(finished: Path):
    with pytest.raises(ValueError, match="uint8 RGB"):
        recyclelora.load(finished).predict(np.zeros((4, 4), np.uint8))


def test_other_pretrained_weights_are_refused(finished: Path, monkeypatch: pytest.MonkeyPatch):
    other = SimpleNamespace(path="other.safetensors", sha256="1" * 64)
    monkeypatch.setattr("recyclelora.inference.locate_weights", lambda backbone: other)
    with pytest.raises(UserError, match=r"trained on weights with sha256 None, but other\.safetensors has 1{64}"):
        recyclelora.load(finished)
