from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest
import torch

from recyclelora.drawing.style import line
from recyclelora.reports.analysis.compare import (
    Measurement,
    by_configuration,
    overlaps,
    run_labels,
    spread,
    with_fused_qkv,
)
from recyclelora.reports.analysis.summary import comparison, summary
from recyclelora.reports.analysis.tables import COLUMNS, Row, mean_by, scalar_means, select, write_csv

ROW = Row("blocks.0.attn.qkv", 0, "qkv", "all", "update", "relative_norm", 0.25)
CURVE = replace(ROW, quantity="singular_value", value=3.0, index=0)
UNDEFINED = replace(ROW, layer="blocks.1.mlp.fc1", block=1, type="fc1", value=math.nan)
LATER = replace(UNDEFINED, value=0.75)
EYE = torch.eye(6, dtype=torch.float64)


def measurement(name: str, seed: int = 0, rank: int = 16, value: float = 1.0, space=EYE[:, :2], **changes):
    tables = {"size": [replace(ROW, value=value)]}
    spaces = {"blocks.0.attn.qkv": {"b": space, "a": space}}
    config = {"adapter.name": "lora", "adapter.main.rank": rank}
    return replace(Measurement(name, config, seed, "weights", tables, spaces), **changes)


def test_csv_round_trip(tmp_path):
    rows = [ROW, CURVE, UNDEFINED]
    write_csv(tmp_path / "size.csv", {"": rows}, with_run=False)
    with (tmp_path / "size.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(COLUMNS)
    assert [float(row["value"]) if row["value"] else None for row in read] == [0.25, 3.0, None]
    assert [row["index"] for row in read] == ["", "0", ""] and read[2]["layer"] == "blocks.1.mlp.fc1"
    write_csv(tmp_path / "runs.csv", {"a, seed 0": [ROW], "b": [CURVE]}, with_run=True)
    with (tmp_path / "runs.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["a, seed 0", "b"]


def test_means_leave_out_curves_and_what_is_undefined():
    found = scalar_means({"size": [ROW, UNDEFINED, LATER], "spectra": [CURVE]})
    assert found == {
        "relative_norm/all/update": {
            "mean": 0.5, "max": 0.75, "by_type": {"qkv": 0.25, "fc1": 0.75}, "by_block": {"0": 0.25, "1": 0.75},
        }
    }  # fmt: skip
    assert scalar_means({"size": [UNDEFINED]}) == {}
    assert math.isnan(mean_by([ROW, UNDEFINED], "type")["fc1"])
    assert select([ROW, CURVE, LATER], block=0, index=None) == [ROW]


def test_summaries_hold_headlines():
    ratio = replace(ROW, branch="main", quantity="column_norm_ratio", value=1.5)
    found = summary({"step": 3}, {"size": [ROW], "column_norms": [ratio, replace(ratio, value=1.0)]})
    assert found["step"] == 3
    assert found["metrics"] == {
        "relative_norm/all/update": 0.25,
        "column_norm_ratio/main/update": 1.25,
        "column_norm_ratio/main/update/max": 1.5,
    }


def test_seeds_of_one_configuration_are_one_group():
    runs = [
        measurement("r2", seed=1, value=3.0), measurement("r1", seed=0, value=1.0),
        measurement("r3", rank=32), measurement("r4", config={"adapter.name": "full"}),
    ]  # fmt: skip
    groups = by_configuration(runs)
    assert [group.name for group in groups] == [
        "adapter=lora, main.rank=16",
        "adapter=lora, main.rank=32",
        "adapter=full",
    ]
    found = comparison(groups, [])["configurations"]["adapter=lora, main.rank=16"]
    assert found["runs"] == ["r1", "r2"] and found["seeds"] == [0, 1]
    assert found["quantities"]["relative_norm/all/update"] == {"mean": 2.0, "std": pytest.approx(2**0.5)}
    first, second, *_ = run_labels(groups)
    assert (first, second) == ("adapter=lora, main.rank=16, seed 0", "adapter=lora, main.rank=16, seed 1")
    assert spread([math.nan, 2.0]) == (2.0, 0.0) and math.isnan(spread([])[0])


def test_separate_q_k_and_v_count_as_qkv():
    parts = [replace(ROW, layer=f"blocks.0.attn.qkv.{part}", type=part) for part in "qkv"]
    run = measurement("r", tables={"size": [*parts, LATER]})
    (group,) = with_fused_qkv(by_configuration([run]))
    assert [row.type for row in group.runs[0].tables["size"]] == ["qkv", "qkv", "qkv", "fc1"]
    assert run.tables["size"][0].type == "q"


def test_one_seed_twice_keeps_both_runs():
    labels = run_labels(by_configuration([measurement("run-0001"), measurement("run-0002")]))
    assert {label: run.name for label, run in labels.items()} == {
        "adapter=lora, seed 0 (0001)": "run-0001",
        "adapter=lora, seed 0 (0002)": "run-0002",
    }


def test_overlaps_of_equal_half_equal_and_incomparable_runs():
    runs = {
        "a": measurement("a"), "b": measurement("b"), "half": measurement("c", space=EYE[:, 1:3]),
        "other weights": measurement("d", weights="x"), "other width": measurement("e", space=torch.eye(4).double()),
    }  # fmt: skip
    found = {(o.runs, o.side): o.similarity for o in overlaps(runs)}
    assert found == {
        (pair, side): pytest.approx(value)
        for pair, value in ((("a", "b"), 1.0), (("a", "half"), 0.5), (("b", "half"), 0.5))
        for side in "ab"
    }
    assert {o.random for o in overlaps(runs)} == {2 / 6}


def test_no_two_of_28_lines_look_alike():
    assert len({line(index) for index in range(28)}) == 28
