"""What a report says of the worst target and class, of further metrics, and of corruptions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from recyclelora.reports import tables
from recyclelora.reports.charts import draw
from recyclelora.reports.comparison import compare
from recyclelora.reports.groups import WORST, WORST_CLASS
from recyclelora.reports.metric_charts import _severities, _sums
from recyclelora.reports.records import read_sweep
from recyclelora.reports.statistics import t_interval

from .sweeps import TARGETS, run_name, write_run, write_study

SEVERITY = {"clean": 0.6, "mpc": 0.4, "rpc": 2 / 3, "curves": {"fog": {"1": 0.5, "5": 0.3}}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Frozen and LoRA with three seeds; each run has a further figure, LoRA's were scored under fog as well."""
    sweep = write_study(tmp_path_factory.mktemp("metrics") / "adapters")
    for number, (name, seed) in enumerate((name, seed) for name in ("frozen", "lora") for seed in range(3)):
        quality = {"frozen": 0.6, "lora": 0.7}[name] + seed / 150
        changes = {"adapter.name": name, "adapter.kind": "frozen" if name == "frozen" else "low_rank"}
        path = write_run(sweep / run_name(number), seed, quality, changes, images=True)
        result = json.loads((path / "result.json").read_text())
        figures = {"day": {"ece": 0.1 + seed / 100}, "night": {"ece": 0.3 if name == "lora" else 0.5}}
        for summary in result["selection"].values():
            summary["metrics"] = figures
        (path / "result.json").write_text(json.dumps(result))
        if name == "lora":
            (path / "evaluations/a.json").write_text(json.dumps({"checkpoint": "last", "severity": SEVERITY}))
            (path / "evaluations/b.json").write_text('{"severity": ')  # half written
    return compare(read_sweep(sweep), "last", None, 100)


def test_the_worst_of_each_run_and_its_paired_difference(made):
    lora, frozen = made.groups
    for group in (lora, frozen):
        for run in group.runs:
            name, value = run.worst[WORST]
            assert value == min(run.scores[target] for target in TARGETS) == run.scores[name]
            assert run.worst[WORST_CLASS][1] == np.nanmin(run.per_class)
    (d,) = made.differences
    pairs = [a.worst[WORST][1] - b.worst[WORST][1] for a, b in zip(lora.runs, frozen.runs, strict=True)]
    assert d.further[WORST] == t_interval(pairs)
    table = tables.worst(made)
    assert [row[0].text for row in table.rows] == ["adapter=lora", "adapter=frozen"]
    assert table.rows[0][3].value == pytest.approx(np.mean(pairs)) and table.rows[1][3].value is None
    assert table.columns[1:] == ["worst target", "mIoU", "difference", "worst class", "IoU", "difference"]
    alone = tables.worst(dataclasses.replace(made, groups=[lora], differences=[]))
    assert alone.columns[1:] == ["worst target", "mIoU", "worst class", "IoU"] and len(alone.numeric) == 5
    assert "minus" in table.title and "minus" not in alone.title and len(alone.rows[0]) == 5


def test_further_metrics_have_means_over_targets_and_differences(made):
    (d,) = made.differences
    assert d.further["ece, mean of targets"].mean == pytest.approx(-0.1)
    assert list(tables.figure_names(made)) == ["ece, mean of targets", "ece, day", "ece, night"]
    assert tables.figure_differences(made).rows[0][3].text == "-0.2"


def test_reliability_and_severity_are_drawn_from_what_runs_kept(made, tmp_path):
    drawn = {chart.name: chart for chart in draw(made, tmp_path)}
    assert {"reliability", "severity"} <= drawn.keys()
    assert "adapter=lora" in drawn["severity"].svg and "adapter=frozen" not in drawn["severity"].svg
    lora, frozen = made.groups
    assert _severities(lora.runs[0]) == [SEVERITY] and _severities(frozen.runs[0]) == []
    rows = _sums(lora)
    right = sum(np.trace(counts.total()) for run in lora.runs for counts in run.images.values())
    assert rows.sum(0).reshape(3, 15)[2, 13] == right
