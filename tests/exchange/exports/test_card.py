"""The model card, licences, the cost of low precision, and the latency table."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from recyclelora.config.commands import ExportConfig
from recyclelora.config.compose import ConfigError, home, validate
from recyclelora.data.config import DATASETS
from recyclelora.evaluation.load import load
from recyclelora.exchange.exports import licences
from recyclelora.exchange.exports import onnx as onnx_export
from recyclelora.exchange.exports.bench import measured
from recyclelora.exchange.exports.card import model_card
from recyclelora.exchange.exports.source import Source
from recyclelora.system.errors import UserError

from .conftest import asked


def test_every_dataset_has_its_terms_and_they_are_those_of_the_docs():
    assert licences.DATASETS.keys() == set(DATASETS)
    text = (home() / "docs/licences.md").read_text()
    for terms in {*licences.WEIGHTS.values(), *licences.DATASETS.values()} - {"your own"}:
        assert f"| {terms} |" in text, terms
    assert licences.of_weights("hub", "dinov2_small", "vit_small_patch14_dinov2.lvd142m") == "Apache-2.0"
    assert licences.of_weights("", "mine", "resnet") == "not known here"


def test_a_card_says_data_scores_licences_and_limits(finished: Path, exported: Callable[[str], Path]):
    text = (exported("timm") / "MODEL_CARD.md").read_text()
    result = json.loads((finished / "result.json").read_text())
    assert f"| cityscapes | {100 * result['miou']['mean']:.1f} |" in text
    assert "| trained on | gta | gta | 1" in text and "- gta: for research and education" in text
    assert "weights vit_tiny_test: random" in text and "It hardly finds: " in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Data", "## Scores", "## Licences", "## Limits",
    ]  # fmt: skip


def test_a_card_has_further_metrics_the_worst_target_and_speed(finished: Path, tmp_path: Path):
    run = tmp_path / finished.name
    shutil.copytree(finished, run)
    result = json.loads((run / "result.json").read_text())
    last = result["selection"]["last"]
    last["targets"] = {"day": 0.5, "night": 0.25}
    last["metrics"] = {"night": {"ece": 0.125}}
    (run / "result.json").write_text(json.dumps(result))
    row = {"device": "cpu", "size": [64, 96], "batch": 1, "median_ms": 2.0, "p90_ms": 3.0, "peak_memory_mb": 99.6,
           "threads": 2, "processor": "a processor"}  # fmt: skip
    text = model_card(Source.of(load(run, accelerator="cpu"), "last"), "onnx", [row])
    assert "| night | 25.0 | 0.125 |" in text and "It is worst on night: mIoU 25.0 %." in text
    assert "off by 12 % on the worst set" in text and "| cpu | 64x96 | 1 | 2.0 | 3.0 | 100 |" in text


@pytest.mark.slow
def test_eight_bits_cost_little_and_what_costs_more_is_refused(finished: Path, tmp_path: Path, monkeypatch):
    source = Source.of(load(finished, accelerator="cpu"), "last")
    outcome = onnx_export.write(source, tmp_path, asked((64, 64), "int8"))
    outcome.verify()
    miou = outcome.details["miou"]
    assert miou["lost"] == pytest.approx(miou["run"] - miou["export"]) and miou["lost"] <= onnx_export.MOST_LOST
    stored = {w.data_type for w in onnx.load(tmp_path / "segmenter.onnx").graph.initializer if len(w.dims) == 2}
    assert onnx.TensorProto.INT8 in stored
    assert not list(tmp_path.glob("float-*"))
    (row,) = measured(tmp_path, (64, 64), repeats=3)
    assert row["device"] == "cpu" and row["batch"] == 1 and 0 < row["median_ms"] <= row["p90_ms"]
    assert 20 < row["peak_memory_mb"] < 1000
    wrong = SimpleNamespace(predict=lambda image: (np.full(image.shape[:2], 18, np.uint8), None))
    monkeypatch.setattr(onnx_export, "MOST_LOST", 1e-4)
    with pytest.raises(UserError, match=r"loses .* points of mIoU on \d+ images .* not written"):
        onnx_export.lost(source, wrong)
    monkeypatch.setattr(source.run.config.data.protocol, "mode", "whole")
    with pytest.raises(UserError, match=r"not written; an image of \d+x\d+ is padded to 512x512: size=\[\d+"):
        onnx_export.lost(source, wrong, (512, 512))
    assert "not measured: an image of" in str(onnx_export.lost(source, wrong, (16, 16)))
    source.run.config.data.root = str(tmp_path / "nowhere")
    assert "was not measured" in str(onnx_export.lost(source, wrong))


def test_only_whole_models_are_measured():
    with pytest.raises(ConfigError, match=re.escape("bench=True: is for whole models")):
        validate(ExportConfig(run="x", format="timm", bench=True))
