from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import TINY
from safetensors.torch import load_file, save_file

from recyclelora.commands.repeat import repeat
from recyclelora.config.commands import RepeatConfig
from recyclelora.runs.metrics_log import TIMINGS, read_points
from recyclelora.runs.repetition import differences, disagreements
from recyclelora.system.errors import UserError
from recyclelora.training.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and where its data lie."""
    from conftest import compose_config, make_cityscapes, make_gta

    folder = tmp_path_factory.mktemp("first")
    make_gta(folder / "data")
    make_cityscapes(folder / "data")
    config = compose_config(folder, *TINY, "trainer.eval_every=2", "trainer.max_steps=3")
    Run.identify(config, None).execute()
    (path,) = (Path(config.output_dir) / "runs").iterdir()
    return path


def untimed(path: Path) -> list[dict]:
    points = read_points(path / "metrics.jsonl")
    return [{name: value for name, value in point.items() if name not in TIMINGS} for point in points]


@pytest.fixture
def altered(finished, tmp_path):
    """A copy of the run whose record a test may change."""
    import shutil

    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)

    def alter(**entries) -> Path:
        about = json.loads((copy / "run.json").read_text())
        (copy / "run.json").write_text(json.dumps(about | entries))
        return copy

    return alter


def test_a_run_is_repeated_from_its_directory_bit_for_bit(finished, tmp_path, capsys):
    repeat(RepeatConfig(run=str(finished), output_dir=str(tmp_path)))
    (again,) = (tmp_path / "runs").iterdir()
    assert again.name == finished.name
    assert untimed(again) == untimed(finished) and len(untimed(again)) == 6
    assert (again / "adapter.safetensors").read_bytes() == (finished / "adapter.safetensors").read_bytes()
    said = capsys.readouterr().out
    assert "repeated exactly" in said.split("next:")[0] and said.count("next:") == 1
    first, second = (json.loads((path / "result.json").read_text()) for path in (finished, again))
    assert first["iou_per_class"] == second["iou_per_class"]


def test_the_record_tells_code_packages_and_machine(finished):
    about = json.loads((finished / "run.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", about["code_sha256"]) and set(about["git"]) == {"commit", "diff"}
    assert {"python", "torch", "numpy", "recyclelora", "pytest"} <= about["versions"].keys()
    assert about["host"]["cpu"] and about["host"]["memory_gib"] > 0 and about["host"]["threads"] >= 1
    assert {"gpus", "driver", "cuda"} <= about["host"].keys()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"code_sha256": "0" * 64, "git": {"commit": "a" * 40, "diff": "+x"}},
         r"code: commit a{12} with uncommitted changes then, .* now(.|\n)*git checkout a{12} and apply git\.diff"),
        ({"weights_sha256": "1" * 64}, "pretrained weights: 1{12} then, None now"),
        ({"dataset_digest": "2" * 64}, "data: 2{12} then, [0-9a-f]{12} now"),
        ({"versions": {"torch": "0.1"}}, r"torch: 0\.1 then, \d.* now"),
    ],
)  # fmt: skip
def test_what_differs_is_named_and_nothing_is_trained(altered, tmp_path, entries, words):
    with pytest.raises(UserError, match=words):
        repeat(RepeatConfig(run=str(altered(**entries)), output_dir=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_anyway_goes_on_and_says_what_differs(altered, tmp_path, capsys):
    run = altered(code_sha256="0" * 64)
    repeat(RepeatConfig(run=str(run), output_dir=str(tmp_path / "out"), anyway=True))
    out = capsys.readouterr().out
    assert "warning: not as it was: code: " in out and "repeated exactly" in out


def test_a_run_is_not_compared_with_itself_and_must_be_finished(finished, tmp_path):
    with pytest.raises(UserError, match="the run itself lies there"):
        repeat(RepeatConfig(run=str(finished), output_dir=str(finished.parents[1])))
    with pytest.raises(UserError, match="not a run directory"):
        repeat(RepeatConfig(run=str(tmp_path)))
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match="not the directory of a finished run"):
        repeat(RepeatConfig(run=str(tmp_path), output_dir=str(tmp_path)))


def test_disagreements_name_the_first_point_and_the_size(altered, finished):
    run = altered()
    assert disagreements(finished, run) == []
    lines = (run / "metrics.jsonl").read_text().splitlines()
    point = json.loads(lines[1])
    (run / "metrics.jsonl").write_text("\n".join([lines[0], json.dumps(point | {"lr": 1.0}), *lines[2:]]) + "\n")
    tensors = load_file(run / "adapter.safetensors")
    name = next(name for name in tensors if name.startswith("trained/decoder"))
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, run / "adapter.safetensors")
    first, second = disagreements(finished, run)
    assert first == f"metrics.jsonl: lr after step 2 was {point['lr']}, is 1.0"
    assert re.fullmatch(rf"adapter\.safetensors: 1 of {len(tensors)} tensors differ, by at most 0\.5", second)


def test_every_difference_has_a_line():
    then = {"code_sha256": "a", "git": None, "versions": {"x": "1", "y": "1"}, "precision": "32-true", "world_size": 1}
    now = {**then, "versions": {"y": "2", "z": "1"}, "world_size": 2}
    assert differences(then, then) == []
    assert differences(then, now) == [
        "number of processes: 1 then, 2 now", "x: 1 then, not installed now", "y: 1 then, 2 now",
        "z: not installed then, 1 now",
    ]  # fmt: skip
