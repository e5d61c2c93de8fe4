"""The command ``export.py``: what it writes, says and refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, compose_config, make_cityscapes, make_gta

from recyclelora.commands.export import export
from recyclelora.config.commands import ExportConfig
from recyclelora.config.compose import ConfigError, home, validate
from recyclelora.exchange.exports import agreement, source
from recyclelora.system.errors import UserError
from recyclelora.training.run import Run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make_cityscapes(make_gta(folder / "data"))
    run = Run.identify(compose_config(folder, *TINY), None)
    run.execute()
    return run.directory.path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_export_with_a_report_in_the_run(finished: Path, capsys: pytest.CaptureFixture[str]):
    export(ExportConfig(run=str(finished), format="timm", checkpoint="best_source"))
    folder = finished / "export" / "timm"
    assert files(folder) == {"model.safetensors", "config.json", "README.md", "MODEL_CARD.md", "load.py", "report.json"}
    assert files(finished / "export") == {"timm"}
    report = json.loads((folder / "report.json").read_text())
    about = {"format": "timm", "run": finished.name, "adapter": "recyclelora", "checkpoint": "best_source", "step": 4}
    assert {key: report[key] for key in about} == about
    assert len(report["checks"]) == 2 and report["tolerance"]["relative"] == 1e-4
    out = capsys.readouterr().out
    assert out.count("compared with the adapted model at") == 2 and f"written: {folder}" in out


def test_an_export_that_disagrees_is_not_written(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output = tmp_path / "out"
    config = ExportConfig(run=str(finished), format="timm", output=str(output))
    export(config)
    before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    strict = agreement.Tolerance(0.0, 1.0)
    monkeypatch.setattr("recyclelora.exchange.exports.timm.FLOAT32", strict)
    with pytest.raises(UserError, match=r"disagrees with the adapted model at 64x64: .* not written"):
        export(config)
    assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
    assert files(tmp_path) == {"out"}


def test_a_method_that_cannot_be_merged_is_refused_by_name(finished: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(model: object) -> None:
        raise ValueError("rein cannot be merged: what it computes is no weight of the backbone")

    monkeypatch.setattr(source, "merge", refuse)
    with pytest.raises(UserError, match="rein cannot be merged"):
        export(ExportConfig(run=str(finished), format="timm", output="never"))


def test_what_is_not_there_is_named(finished: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"run=.*nothing: not a run directory"):
        export(ExportConfig(run=str(tmp_path / "nothing"), format="timm"))
    running = tmp_path / "running"
    shutil.copytree(finished, running)
    (running / "adapter.safetensors").unlink()
    with pytest.raises(UserError, match="running: has not finished; the command that started it goes on"):
        export(ExportConfig(run=str(running), format="timm"))
    (running / "adapter.safetensors").touch()
    shutil.rmtree(running / "checkpoints")
    with pytest.raises(UserError, match="no checkpoint 'best_target'"):
        export(ExportConfig(run=str(running), format="timm", checkpoint="best_target", output="never"))
    assert not (tmp_path / "running" / "never").exists()


def test_only_an_export_is_replaced(finished: Path, tmp_path: Path):
    (tmp_path / "report.json").write_text('{"data": "streets"}')  # as an inspection writes one
    with pytest.raises(UserError, match="exists and is no export"):
        export(ExportConfig(run=str(finished), format="timm", output=str(tmp_path)))
    assert files(tmp_path) == {"report.json"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "onx"}, "format='onx': must be one of timm, peft, segmenter, onnx.*did you mean onnx"),
        ({"checkpoint": "best"}, "checkpoint='best': must be one of last"),
        ({"precision": "fp8", "format": "onnx"}, "precision='fp8': must be one of fp32, fp16"),
        ({"precision": "fp16"}, "precision='fp16': can be chosen with format=onnx only"),
        ({"size": [64], "format": "onnx"}, r"size=\[64\]: must be \[height, width\]"),
        ({"size": [64, 0], "format": "onnx"}, "size=.*: must be a finite number of at least 1"),
    ],
)
def test_bad_options_are_named(changes: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        validate(dataclasses.replace(ExportConfig(run="x", format="timm"), **changes))


def test_a_missing_package_is_named(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UserError, match=r"format=onnx needs the package onnxruntime: pip install 'recyclelora\[export\]'"
    ):
        export(ExportConfig(run=str(finished), format="onnx"))


@pytest.mark.slow
def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path):
    for arguments, words in (
        (["run=nothing", "format=timm"], "export: run=nothing: not a run directory"),
        (["run=nothing", "format=tim"], "export: format='tim': must be one of timm"),
        (["format=timm"], "export: run: "),
    ):
        code, _, err = run_export(tmp_path, *arguments)
        assert code == 2 and err.startswith(words) and err.count("\n") == 1, err


def run_export(folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, str(home() / "export.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    return done.returncode, done.stdout, done.stderr
