"""Metrics of another package: the example, installed as a package manager would, and what can go wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import TINY
from installing import install, install_project

import recyclelora
from recyclelora.commands.evaluate import evaluate
from recyclelora.config.commands import EvaluateConfig, ReportConfig
from recyclelora.config.compose import ConfigError, home
from recyclelora.evaluation.extra_metrics import ExtraMetrics
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.reports.writing import write_report
from recyclelora.system.plugins import installed
from recyclelora.system.progress import Reporter
from recyclelora.training.run import Run

EXAMPLE = home() / "examples/frequency_metric"
SCHEMA = json.loads((Path(recyclelora.__file__).parent / "runs/result.schema.json").read_text())


@pytest.fixture(autouse=True)
def looked_up_anew() -> Iterator[None]:
    installed.cache_clear()
    yield
    installed.cache_clear()
    for name in ("frequency_metric", "mine_package"):
        sys.modules.pop(name, None)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install_project(EXAMPLE, tmp_path / "site"))


def counts(*matrices: list[list[int]]) -> ImageCounts:
    found = ImageCounts(2)
    for matrix in matrices:
        found.add(np.array(matrix))
    return found


def test_the_example_by_hand(example):
    told: list[str] = []
    metrics = ExtraMetrics(["frequency"], ["road", "car"], told.append)
    found = metrics.of(counts([[6, 2], [0, 0]], [[0, 0], [1, 1]]))
    assert found == pytest.approx({"fwiou": 0.8 * 6 / 9 + 0.2 * 1 / 4, "accuracy": 0.7, "accuracy_worst": 0.5})
    assert metrics.of(counts([[0, 0], [0, 0]])) == {} and told == []  # a set without labels


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def metric(*_): return 1 / 0", "ZeroDivisionError"),
        ("def metric(*_): return {'miou': 1}", "'miou' cannot name a figure"),
        ("def metric(*_): return {'loss_own': 1}", "'loss_own' cannot name a figure"),
        ("def metric(*_): return None", "AttributeError"),
    ],
)
def test_a_metric_that_fails_is_told_and_ends_nothing(tmp_path, monkeypatch, source, words):
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package/__init__.py").write_text(source)
    install(tmp_path / "mine_package", "mine", {"recyclelora.metrics": {"mine": "mine_package:metric"}}, tmp_path / "s")
    monkeypatch.syspath_prepend(tmp_path / "s")
    told: list[str] = []
    assert ExtraMetrics(["mine", "gone"], ["road", "car"], told.append).of(counts([[1, 0], [0, 1]])) == {}
    first, second = told
    assert first.startswith("metric mine is left out: ") and words in first
    assert second == "metric gone is left out: LookupError: no installed package offers it"


def test_infinite_figures_are_left_out(tmp_path, monkeypatch):
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package/__init__.py").write_text("def metric(*_): return {'a': float('nan'), 'b': 2}")
    install(tmp_path / "mine_package", "mine", {"recyclelora.metrics": {"mine": "mine_package:metric"}}, tmp_path / "s")
    monkeypatch.syspath_prepend(tmp_path / "s")
    assert ExtraMetrics(["mine"], ["road", "car"], print).of(counts([[1, 0], [0, 1]])) == {"b": 2.0}


def test_a_metric_that_nobody_offers_is_refused(make_config, example):
    with pytest.raises(ConfigError, match=r"metrics=.*: no metric 'frequncy' .* \(did you mean frequency\?"):
        make_config("metrics=[frequncy]")


def test_the_example_in_a_run_its_evaluations_and_a_report(make_config, gta2city, example, capsys):
    config = make_config(*TINY, "trainer.eval_every=2", "trainer.eval_images=2", "metrics=[frequency]")
    run = Run.identify(config, None)
    plain = Run.identify(make_config(*TINY, "trainer.eval_every=2", "trainer.eval_images=2"), None)
    assert (plain.signature, plain.directory) == (run.signature, run.directory)
    run.execute()
    path = run.directory.path
    result = json.loads((path / "result.json").read_text())
    jsonschema.validate(result, SCHEMA)
    figures = result["selection"]["last"]["metrics"]
    assert figures.keys() == {"source_val", "cityscapes"}
    assert all(0 <= value <= 1 for row in figures.values() for value in row.values())
    points = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [p["step"] for p in points if "fwiou/cityscapes" in p] == [2, 4]
    assert points[-1]["final_fwiou/cityscapes"] == figures["cityscapes"]["fwiou"]
    assert "fwiou, cityscapes" in capsys.readouterr().out
    evaluate(EvaluateConfig(run=str(path), accelerator="cpu", num_workers=0))
    (answer,) = (path / "evaluations").glob("*.json")
    assert json.loads(answer.read_text())["metrics"] == figures
    folder = write_report(ReportConfig(runs=str(path), output=str(path.parent / "report")), Reporter())
    assert "fwiou, cityscapes" in (folder / "table.md").read_text()
    assert "fwiou, cityscapes" in (folder / "report.html").read_text()
    header, row = ((folder / "runs.csv").read_text().splitlines())[:2]
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert float(cells["fwiou/cityscapes"]) == pytest.approx(figures["cityscapes"]["fwiou"])


def test_a_finished_run_gets_the_figures_of_a_metric_from_the_counts_it_kept(make_config, gta2city, example):
    run = Run.identify(make_config(*TINY), None)
    run.execute()
    before = json.loads((run.directory.path / "result.json").read_text())
    assert "metrics" not in before["selection"]["last"]
    Run.identify(make_config(*TINY, "metrics=[frequency]"), None).execute()
    after = json.loads((run.directory.path / "result.json").read_text())
    assert {"fwiou", "accuracy", "accuracy_worst"} == after["selection"]["last"]["metrics"]["cityscapes"].keys()
    assert after["miou"] == before["miou"]
