"""A finished run scored again, used on unlabelled images, and loaded in Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest
import torch
from conftest import TINY, make_cityscapes, save_rgb
from PIL import Image

import recyclelora
from recyclelora.commands.evaluate import evaluate
from recyclelora.commands.predict import predict
from recyclelora.config.commands import EvaluateConfig, PredictConfig
from recyclelora.data.films import FilmWriter, opened
from recyclelora.data.images import list_images, list_inputs
from recyclelora.data.reading import read_image
from recyclelora.evaluation.image_files import check_pixels
from recyclelora.evaluation.load import Shown
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.training.run import Run


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
    again = json.loads(next((finished / "evaluations").glob("gta2city-recyclelora-last-*.json")).read_text())
    assert again["iou_per_class"] == result["iou_per_class"]
    assert again["step"] == 4 and again["mean"] == result["miou"]["mean"]


def test_evaluating_other_targets_needs_no_source(finished: Path, tmp_path: Path):
    from conftest import compose_config

    make_cityscapes(tmp_path / "data", count=2)
    other = compose_config(tmp_path, *TINY).data
    mean = evaluate(EvaluateConfig(run=str(finished), data=other, checkpoint="best_source"))
    (path,) = (finished / "evaluations").glob("gta2city-recyclelora-best_source-*.json")
    stored = json.loads(path.read_text())
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
    monkeypatch.setattr("recyclelora.evaluation.load.locate_weights", lambda backbone: other)
    with pytest.raises(UserError, match=r"trained on weights with sha256 None, but other\.safetensors has 1{64}"):
        recyclelora.load(finished)


def answers(run: Path) -> set[str]:
    return {path.name for path in (run / "evaluations").glob("*.json")}


def other_data(folder: Path, *overrides: str):
    from conftest import compose_config

    return compose_config(folder, *TINY, *overrides).data


@pytest.mark.slow
def test_every_question_has_an_answer_of_its_own(finished: Path, tmp_path: Path):
    """Each input of an evaluation is changed once: the answers before stay, the same question replaces its own."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "evaluations")
    make_cityscapes(tmp_path / "data", count=3)
    make_cityscapes(tmp_path / "moved/data", count=3)
    target = "data.targets=[{dataset: cityscapes, split: val, %s}]"
    asked = {
        "plain": [],
        "name of the target": [target % "name: other"],
        "corruption": [target % "corruption: {name: fog, severity: 3}"],
        "severity": [target % "corruption: {name: fog, severity: 4}"],
        "subset": [target % "subset: 2"],
        "seed of the subset": [target % "subset: 2", "data.subset_seed=5"],
        "value of the protocol": ["data.protocol.stride=40"],
        "flip": ["data.protocol.flip=true"],
    }
    seen: set[str] = set()
    contents: dict[str, bytes] = {}
    for what, overrides in asked.items():
        evaluate(EvaluateConfig(run=str(run), data=other_data(tmp_path, *overrides), num_workers=0))
        assert len(answers(run) - seen) == 1, what
        seen = answers(run)
    contents = {name: (run / "evaluations" / name).read_bytes() for name in seen}
    evaluate(EvaluateConfig(run=str(run), data=other_data(tmp_path / "moved"), num_workers=0))
    evaluate(EvaluateConfig(run=str(run), data=other_data(tmp_path), checkpoint="best_source", num_workers=0))
    mask = sorted((tmp_path / "data").rglob("*_gtFine_labelIds.png"))[1]
    with Image.open(mask) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(mask, compress_level=1)
    evaluate(EvaluateConfig(run=str(run), data=other_data(tmp_path), num_workers=0))
    assert len(answers(run)) == len(seen) + 3
    assert all((run / "evaluations" / name).read_bytes() == content for name, content in contents.items())
    evaluate(EvaluateConfig(run=str(run), data=other_data(tmp_path), num_workers=0))
    assert len(answers(run)) == len(seen) + 3


def test_masks_that_are_read_otherwise_are_another_question(finished: Path, tmp_path: Path):
    """Of a user's own folder, whose files and their sizes stay as they are; also for counts that are kept."""
    from recyclelora.data.build import build_targets
    from recyclelora.evaluation.rescoring import Question

    make_cityscapes(tmp_path / "data", count=2)
    options = [
        "data=folder", f"data.folder.root={tmp_path / 'data/cityscapes'}",
        *(
            f"data.folder.splits.{split}={{images: leftImg8bit/val/*/*_leftImg8bit.png, "
            "masks: gtFine/val/*/*_gtFine_labelIds.png}"
            for split in ("train", "val", "test")
        ),
    ]  # fmt: skip
    model = recyclelora.load(finished)
    found = []
    for ids in ("{7: 0, 8: 1, 11: 2}", "{7: 1, 8: 0, 11: 2}"):
        data = other_data(tmp_path, *options, f"+data.folder.coding.ids={ids}", "data.folder.coding.others=ignore")
        scored = build_targets(data, str(tmp_path / "cache"))
        question = Question(model, data, scored, "32-true")
        found.append((question.identity, *(question.kept(tmp_path, name, 1).key for name in scored)))
    assert all(one != other for one, other in zip(*found, strict=True))


def test_a_scored_image_that_cannot_be_read_is_named_and_the_same_command_does_the_rest(finished: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    make_cityscapes(tmp_path / "data", count=3)
    image = sorted((tmp_path / "data").rglob("*_leftImg8bit.png"))[1]
    good = image.read_bytes()
    image.write_bytes(good[:-30])
    before = answers(run)
    asked = EvaluateConfig(run=str(run), data=other_data(tmp_path), num_workers=0)
    with pytest.raises(UserError, match=r"(?s)1 images cannot be read.*leftImg8bit.png: .*the same command then"):
        evaluate(asked)
    assert answers(run) == before
    image.write_bytes(good)
    assert evaluate(asked) is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_evaluation_goes_on_where_it_was(finished: Path, tmp_path: Path, monkeypatch, number: int):
    from recyclelora.evaluation.evaluator import Evaluator

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    make_cityscapes(tmp_path / "data", count=5)
    asked = EvaluateConfig(run=str(run), data=other_data(tmp_path), num_workers=0)
    predicting, seen = Evaluator.scores, []

    def signalled(self, *args):
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), number)
        return predicting(self, *args)

    monkeypatch.setattr(Evaluator, "scores", signalled)
    with pytest.raises(Interrupted, match=f"stopped by signal {number.value}; what was counted is kept") as stop:
        evaluate(asked)
    assert stop.value.exit_code == 128 + number and len(seen) == 3
    assert evaluate(asked) is not None and len(seen) == 5


def test_a_stopped_prediction_keeps_what_is_done(finished: Path, tmp_path: Path, monkeypatch):
    from recyclelora.evaluation import image_files

    for index in range(4):
        save_rgb(tmp_path / f"in/{index}.png", np.zeros((64, 80, 3), np.uint8))
    saving, saved = image_files.save_prediction, []

    def signalled(*args):
        saving(*args)
        saved.append(1)
        if len(saved) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(image_files, "save_prediction", signalled)
    with pytest.raises(Interrupted, match="stopped by signal 2 after 2 of 4 images; what is done is kept"):
        predict(PredictConfig(run=str(finished), input=str(tmp_path / "in"), output=str(tmp_path / "out")))
    assert len(list((tmp_path / "out/ids").iterdir())) == 2


def zeros_png(path: Path, side: int) -> None:
    """A grey square of zeros, row by row: a few kilobytes that claim ``side`` x ``side`` pixels."""
    packer = zlib.compressobj(9)
    rows = b"".join([*(packer.compress(bytes(side + 1)) for _ in range(side)), packer.flush()])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_hostile_files_cost_one_line_each_and_never_the_others(finished: Path, tmp_path: Path):
    folder = tmp_path / "in"
    save_rgb(folder / "good.png", np.zeros((64, 80, 3), np.uint8))
    zeros_png(folder / "bomb.png", 15_000)
    assert (folder / "bomb.png").stat().st_size < 300_000
    os.mkfifo(tmp_path / "pipe.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "garbage.jpg")
    content = (folder / "garbage.jpg").read_bytes()
    middle = len(content) // 2
    (folder / "garbage.jpg").write_bytes(content[:middle] + bytes(range(250, 256)) * 20 + content[middle + 120 :])
    (folder / "notes.png").symlink_to("/dev/zero")
    given = [str(folder / name) for name in ("good.png", "bomb.png", "garbage.jpg", "notes.png")]
    asked = PredictConfig(run=str(finished), input=[*given, str(tmp_path / "pipe.png")], output=str(tmp_path / "out"))
    with pytest.raises(UserError) as refused:
        predict(asked)
    lines = str(refused.value).splitlines()
    assert lines[0] == "4 of 5 images could not be segmented:"
    for line, name, why in zip(
        lines[1:], ("bomb.png", "garbage.jpg", "notes.png", "pipe.png"),
        ("15000x15000 pixels are more than max_megapixels=50", "cannot be read", "not a regular", "not a regular"),
        strict=True,
    ):  # fmt: skip
        assert name in line and why in line
    assert [path.name for path in (tmp_path / "out/ids").iterdir()] == ["good.png"]


def test_a_folders_dangling_links_and_pipes_are_not_left_out_in_silence(tmp_path: Path):
    """Each of them is refused by name as it is read, and keeps the others from nothing."""
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.mp4")  # no reader of films ends
    (tmp_path / "folder.png").mkdir()
    images, films = list_inputs(str(tmp_path))
    assert set(images.values()) == {"gone", "pipe"} and not films


def test_inputs_are_images_films_and_streams_or_are_explained(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"no image in it .*its files: 1 \.txt"):
        list_inputs(str(tmp_path))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/drive.mp4").write_bytes(b"film")
    (tmp_path / "a.png").write_bytes(b"image")
    images, films = list_inputs([str(tmp_path), "rtsp://camera:554/1", "/dev/video0"])
    assert images == {tmp_path / "a.png": "a"}
    assert films == {str(tmp_path / "deep/drive.mp4"): "deep/drive", "rtsp://camera:554/1": "rtsp_camera_554_1",
                     "/dev/video0": "dev_video0"}  # fmt: skip
    with pytest.raises(UserError, match=r"drive\.mp4: a film has no place here"):
        list_images(str(tmp_path / "deep/drive.mp4"))


def test_a_film_becomes_a_film_of_overlays(finished: Path, tmp_path: Path):
    writer = FilmWriter(tmp_path / "in/drive.mp4", 10.0, (64, 98))
    for index in range(5):
        writer.add(np.full((64, 98, 3), 40 * index, np.uint8))
    writer.close()
    (tmp_path / "in/broken.avi").write_bytes(b"film")
    asked = PredictConfig(
        run=str(finished), input=str(tmp_path / "in"), output=str(tmp_path / "out"), every=2, frames=True
    )
    with pytest.raises(UserError, match=r"(?s)1 of 2 films .*broken\.avi: cannot be read as a film"):
        predict(asked)
    with opened(str(tmp_path / "out/films/drive.mp4")) as film:
        frames = [frame for _, frame in film.read()]
        assert (film.size, film.fps, len(frames)) == ((64, 98), 5.0, 3)
    names = {path.name for path in (tmp_path / "out/ids/drive").iterdir()}
    assert names == {"000000.png", "000002.png", "000004.png"}
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/drive/000004.png")).astype(int)
    assert np.abs(frames[2].astype(int) - overlay).mean() < 12  # what compression leaves of it
    classes = json.loads((tmp_path / "out/classes.json").read_text())
    ids = np.asarray(Image.open(tmp_path / "out/ids/drive/000000.png"))
    painted = np.asarray(Image.open(tmp_path / "out/colours/drive/000000.png"))
    assert (painted[0, 0] == classes[ids[0, 0]]["colour"]).all() and (tmp_path / "out/legend.png").is_file()


def test_large_pictures_are_cut_into_windows_of_the_training_size(finished: Path, monkeypatch):
    from dataclasses import replace

    from recyclelora.evaluation import load as inference

    model = recyclelora.load(finished)
    whole = replace(model, evaluator=replace(model.evaluator, protocol=replace(model.evaluator.protocol, mode="whole")))
    assert whole.evaluator_for((1024, 2048), Shown()).protocol.mode == "whole"
    photo = whole.evaluator_for((3000, 4000), Shown())
    assert (photo.protocol.mode, photo.protocol.window, photo.protocol.stride) == ("slide", 64, 43)
    assert photo.steps((3000, 4000)) == 70 * 93
    smaller = whole.evaluator_for((3000, 4000), Shown(size=512, window=512, batch=7))
    assert smaller.protocol.shown_size("", (3000, 4000)) == (512, 683)
    assert (smaller.protocol.window, smaller.protocol.stride, smaller.window_batch) == (512, 341, 7)
    assert smaller.steps((3000, 4000)) == 2
    monkeypatch.setattr(inference, "WHOLE_PIXELS", 64 * 64)
    told: list[int] = []
    image = np.random.default_rng(0).integers(0, 256, (100, 130, 3)).astype(np.uint8)
    found = whole.predict(image, advance=told.append)
    assert sum(told) == whole.evaluator_for((100, 130), Shown()).steps((100, 130)) == 2 * 3
    assert found.ids.shape == (100, 130)
    assert whole.predict(image, Shown(size=50)).ids.shape == (100, 130)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_the_limit_of_megapixels_is_the_one_that_was_given(tmp_path: Path, kind: str):
    """Above 179 megapixels Pillow opens nothing, whatever was asked for."""
    path, side = tmp_path / "claims", 60_000
    Image.new("RGB", (251, 253)).save(path, kind)
    content = path.read_bytes()
    for given in (251, 253):
        order: Literal["big", "little"] = "big" if kind == "JPEG" else "little"
        assert given.to_bytes(2, order) in content
        content = content.replace(given.to_bytes(2, order), side.to_bytes(2, order))
    path.write_bytes(content)
    limit = Image.MAX_IMAGE_PIXELS
    check_pixels(path, 3600)
    with pytest.raises(UserError, match="60000x60000 pixels are more than max_megapixels=3599;"):
        check_pixels(path, 3599)
    assert limit == Image.MAX_IMAGE_PIXELS
