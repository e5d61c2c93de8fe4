"""A run and its data: files that break and are mended, sets that change, evaluations that are cut short."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import TINY
from PIL import Image

from recyclelora.data.identity import Files
from recyclelora.evaluation import evaluator as evaluation
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.training import scorer
from recyclelora.training.run import Run

from .test_run import execute, run_dir, without_time

FOUND = ("dataset_digest", "training_digest", "scored_digests")


@pytest.fixture
def config(make_config, gta2city):
    return make_config(*TINY)


def trained_on(config, index: int) -> Path:
    """An image of the source."""
    return Run.identify(config, None).datasets.sources[0].items[index].image


def flip_a_byte(path: Path) -> bytes:
    """Damage that neither size nor header shows; returns what the file held."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return content


def mend(path: Path, content: bytes) -> None:
    """The same picture in another number of bytes."""
    path.write_bytes(content)
    with Image.open(path) as picture:
        picture.load()
        picture.save(path, compress_level=1)
    assert path.stat().st_size != len(content)


def without_data(path: Path) -> dict:
    return {key: value for key, value in without_time(path).items() if key not in FOUND}


def test_scored_sets_are_no_part_of_what_a_training_is_and_sources_are(config, gta2city):
    first = Run.identify(config, None).signature
    scored = next(gta2city.rglob("*_leftImg8bit.png"))
    scored.write_bytes(scored.read_bytes() + b"\0")
    assert Run.identify(config, None).signature == first
    source = trained_on(config, 2)
    source.write_bytes(source.read_bytes() + b"\0")
    assert Run.identify(config, None).signature != first


def test_the_digest_knows_which_set_a_file_is_in():
    a, b = "gta/1.png 5", "gta/2.png 6"
    assert Files([[a], [b]], {}).trained_on() != Files([[b], [a]], {}).trained_on()
    assert Files([[a]], {"x": [b]}).all_together() == Files([[b]], {"x": [a]}).all_together()  # as 0.1.0 did
    assert Files([[a, b]], {}).trained_on() == Files([[b, a]], {}).trained_on()
    assert Files([["gta/1.png 7"]], {}).trained_on({"gta/1.png": 5}) == Files([[a]], {}).trained_on()


def test_a_finished_run_whose_scored_files_changed_is_scored_again(config, gta2city, capsys):
    path = execute(config)
    before = (path / "result.json").read_bytes()
    mask = next(gta2city.rglob("*_gtFine_labelIds.png"))
    with Image.open(mask) as picture:
        turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        turned.save(mask, compress_level=0)
    Run.identify(config, None).execute()
    out = capsys.readouterr().out
    assert "cityscapes: other files than when this run was scored; scoring again" in out.replace("source_val, ", "")
    assert run_dir(config) == path
    now = json.loads((path / "result.json").read_text())
    assert now["miou"]["targets"] != json.loads(before)["miou"]["targets"]
    assert [old.read_bytes() for old in path.glob("result.json.old-*")] == [before]
    points = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [p["step"] for p in points if "loss_ce" in p] == [1, 2, 3, 4]
    assert sum("final_miou/cityscapes" in p for p in points) == 1
    Run.identify(config, None).execute()
    assert "already finished" in capsys.readouterr().out


@pytest.mark.parametrize("workers", [0, 2])
def test_a_scored_file_that_breaks_costs_its_own_score_only(make_config, gta2city, tmp_path, capsys, workers):
    options = [*TINY, "trainer.eval_every=2", f"trainer.num_workers={workers}"]
    whole = without_data(execute(make_config(*options, f"output_dir={tmp_path / 'whole'}")))
    capsys.readouterr()
    mask = sorted(gta2city.rglob("*_gtFine_labelIds.png"))[1]
    good = flip_a_byte(mask)
    config = make_config(*options)
    with pytest.raises(UserError) as refused:
        Run.identify(config, None).execute()
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("1 images cannot be read; the training is finished and kept, and all others are done")
    assert mask.name in lines[1] and "the same command then does the rest" in lines[2]
    assert "cityscapes after step 2: scored without 1 of 3 images" in capsys.readouterr().out
    path = run_dir(config)
    assert (path / "adapter.safetensors").exists() and not (path / "result.json").exists()
    assert (path / "checkpoints/last").read_text() == "step_000004\n"
    mend(mask, good)
    assert execute(config) == path
    found = without_data(path)
    found["selection"] = {"last": found["selection"]["last"]}  # the best were chosen by what could be scored
    assert found == {**whole, "selection": {"last": whole["selection"]["last"]}}
    steps = [
        p["step"] for line in (path / "metrics.jsonl").read_text().splitlines() if "loss_ce" in (p := json.loads(line))
    ]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_mending_a_file_that_is_trained_on_makes_no_other_run(make_config, gta2city, tmp_path, workers):
    options = [*TINY, "trainer.max_steps=8", "trainer.eval_every=8", f"trainer.num_workers={workers}"]
    undisturbed = execute(make_config(*options, f"output_dir={tmp_path / 'whole'}"))
    config = make_config(*options)
    image = trained_on(config, 4)
    good = flip_a_byte(image)
    with pytest.raises(UserError, match=rf"{image.name}: cannot be read: .*\nmend it; the same command then goes on"):
        Run.identify(config, None).execute()
    path = run_dir(config)
    trained = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    last = path / "checkpoints/last"
    assert (int(last.read_text()[5:]) if last.exists() else 0) == max([0, *trained])  # nothing is lost
    mend(image, good)
    assert execute(config) == path
    assert (path / "adapter.safetensors").read_bytes() == (undisturbed / "adapter.safetensors").read_bytes()
    assert Run.identify(config, None).execute() is not None  # and is found again when it is finished


def test_a_run_of_the_first_release_is_found_after_mending_too(make_config, gta2city, monkeypatch):
    config = make_config(*TINY, "trainer.max_steps=8", "trainer.eval_every=8")
    with monkeypatch.context() as patch:
        patch.setattr(Files, "trained_on", Files.all_together)
        image = trained_on(config, 4)
        good = flip_a_byte(image)
        with pytest.raises(UserError, match=image.name):
            Run.identify(config, None).execute()
    mend(image, good)
    assert execute(config) == run_dir(config)


def test_broken_files_are_named_before_the_first_step(config, gta2city):
    cut = trained_on(config, 3)
    cut.write_bytes(cut.read_bytes()[:-20])
    mask = sorted(gta2city.rglob("*_gtFine_labelIds.png"))[2]
    mask.write_bytes(b"")
    with pytest.raises(UserError) as refused:
        Run.identify(config, None).execute()
    text = str(refused.value)
    assert text.startswith("2 samples of the data cannot be used") and cut.name in text and mask.name in text
    assert not (run_dir(config) / "metrics.jsonl").exists()
    assert json.loads((run_dir(config) / "ended.json").read_text())["status"] == "failed"


def test_files_that_were_found_sound_are_not_looked_at_again(config, gta2city, monkeypatch, make_config):
    execute(config)
    monkeypatch.setattr("recyclelora.training.preparation.unusable_files", lambda *_: pytest.fail("looked at again"))
    execute_again = make_config(*TINY, "seed=1")
    Run.identify(execute_again, None).execute()
    os.utime(trained_on(config, 3))
    with pytest.raises(pytest.fail.Exception, match="looked at again"):
        Run.identify(make_config(*TINY, "seed=2"), None).execute()


def evaluating_is(monkeypatch: pytest.MonkeyPatch, happening) -> list[int]:
    """Let something happen at each image that is scored; returns a list that grows by one with each."""
    predict, seen = evaluation.Evaluator.scores, []

    def predicting(self, *args):
        seen.append(1)
        happening(len(seen))
        return predict(self, *args)

    monkeypatch.setattr(evaluation.Evaluator, "scores", predicting)
    return seen


def killed(number: int) -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_is_there_before_its_evaluation(make_config, gta2city, tmp_path, monkeypatch):
    options = [*TINY, "trainer.eval_every=2"]
    whole = execute(make_config(*options, f"output_dir={tmp_path / 'whole'}"))
    config = make_config(*options)
    with monkeypatch.context() as patch:
        evaluating_is(patch, killed)
        with pytest.raises(KeyboardInterrupt):
            Run.identify(config, None).execute()
    path = run_dir(config)
    assert (path / "checkpoints/last").read_text() == "step_000002\n"
    assert not (path / "checkpoints/best_target").exists()
    execute(config)
    assert without_time(path) == without_time(whole)
    for name in ("metrics.jsonl", "checkpoints/scores.json"):
        ours, theirs = ((folder / name).read_text() for folder in (path, whole))
        if name == "metrics.jsonl":
            ours, theirs = ([sorted(json.loads(line)) for line in text.splitlines()] for text in (ours, theirs))
        assert ours == theirs


@pytest.mark.parametrize("at", [1, 8])  # in the evaluation after step 2, and in the scoring at the end
def test_a_signal_while_images_are_scored_is_heeded_at_the_next_image(make_config, gta2city, tmp_path, monkeypatch, at):
    options = [*TINY, "trainer.eval_every=2", "trainer.eval_images=2"]
    whole = execute(make_config(*options, f"output_dir={tmp_path / 'whole'}"))
    config = make_config(*options)
    with monkeypatch.context() as patch:
        seen = evaluating_is(patch, lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == at else None)
        with pytest.raises(Interrupted, match=r"stopped by signal 15 after step \d; the same command goes on") as stop:
            Run.identify(config, None).execute()
        assert stop.value.exit_code == 143 and len(seen) == at
    path = run_dir(config)
    seen = evaluating_is(monkeypatch, lambda number: None)
    execute(config)
    assert without_time(path) == without_time(whole)
    assert not list((path / "evaluations").glob("partial/*"))


def test_every_evaluation_looks_at_the_files_of_a_set_once(config, monkeypatch):
    looks, contents = [], scorer.content_digest
    monkeypatch.setattr(scorer, "content_digest", lambda d: looks.append(d.label) or contents(d))
    run = Run.identify(config, None)
    run.execute()
    assert sorted(looks) == sorted(2 * [d.label for d in run.datasets.scored.values()])  # after step 4, and at the end


def test_scores_of_other_code_or_other_files_are_not_the_result(config, monkeypatch):
    """Kept counts and the history answer one question; a corrected reading of masks is another."""
    with monkeypatch.context() as patch:
        patch.setattr("recyclelora.training.result.predict_unlabelled", lambda *_, **__: killed(0))
        with pytest.raises(KeyboardInterrupt):
            Run.identify(config, None).execute()
        seen = evaluating_is(patch, lambda number: None)
        with pytest.raises(KeyboardInterrupt):
            Run.identify(config, None).execute()
        assert not seen  # nothing has changed: the scores of the last evaluation are the result's
        patch.setattr(scorer, "code_digest", lambda: "corrected")
        with pytest.raises(KeyboardInterrupt):
            Run.identify(config, None).execute()
        assert len(seen) == 1 + 3
