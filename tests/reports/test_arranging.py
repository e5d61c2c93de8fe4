"""What an author chooses of the tables for papers."""

from __future__ import annotations

import pytest

from recyclelora.config.commands import ReportConfig
from recyclelora.reports import tables
from recyclelora.reports.arranging import Arrangement
from recyclelora.reports.comparison import compare
from recyclelora.reports.figure_style import shown, style
from recyclelora.reports.group_charts import cost as cost_of
from recyclelora.reports.records import read_runs
from recyclelora.reports.table import Cell, Table
from recyclelora.system.errors import UserError

from .sweeps import write_run

SCORES = Table(
    "scores", "Scores", ["group", "seeds", "mean of targets", "night"], [False, True, True, True],
    [[Cell(name), Cell("3"), Cell(mean), Cell(night)] for name, mean, night in (
        ("adapter=soma", "60", "50"), ("adapter=lora", "58", "49"), ("adapter=lora_equal", "57", "48"))],
)  # fmt: skip


def test_columns_groups_and_labels_are_chosen_by_name_or_a_part_of_it():
    asked = ReportConfig(
        sweep="x", columns=["night", "mean"], order=["adapter=lora", "soma"], labels=["soma: SoMA", "night: Night"]
    )
    (table,) = Arrangement.of(asked, SCORES).arranged([SCORES])
    assert table.columns == ["group", "Night", "mean of targets"] and table.numeric == [False, True, True]
    assert [[cell.text for cell in row] for row in table.rows] == [["adapter=lora", "49", "58"], ["SoMA", "50", "60"]]
    assert Arrangement.of(ReportConfig(sweep="x"), SCORES).arranged([SCORES]) == [SCORES]


def test_other_tables_of_groups_and_those_of_entrants_follow_the_order_and_the_labels():
    differences = Table(
        "differences",
        "Minus that of adapter=soma",
        ["group", "p"],
        [False, True],
        [[Cell("adapter=soma"), Cell("0.1")]],
    )
    rows = [[Cell("adapter=soma"), Cell("5")], [Cell("adapter=lora"), Cell("6")]]
    race = Table("differences", "R", ["entrant", "seeds"], [False, True], rows)
    labels = ["adapter=soma: SoMA", "adapter=lora: LoRA"]
    asked = Arrangement.of(ReportConfig(sweep="x", order=["adapter=lora"], labels=labels), SCORES)
    first, second = asked.arranged([differences, race])
    assert first.rows == [] and first.title == "Minus that of SoMA"
    assert [[cell.text for cell in row] for row in second.rows] == [["LoRA", "6"]]


def test_columns_of_several_tables_are_chosen_together():
    row = [Cell("adapter=soma"), Cell("+1"), Cell("0.1"), Cell("better")]
    differences = Table("differences", "D", ["group", "difference", "p", "verdict"], [False, True, True, False], [row])
    asked = Arrangement.of(ReportConfig(sweep="x", columns=["night", "verdict", "diff"]), SCORES, differences)
    assert [table.columns for table in asked.arranged([SCORES, differences])] == [
        ["group", "night"], ["group", "verdict", "difference"]]  # fmt: skip
    only = Arrangement.of(ReportConfig(sweep="x", columns=["night"]), SCORES, differences)
    assert only.arranged([differences]) == [differences]


def test_figures_have_the_groups_of_the_order_under_their_labels(tmp_path):
    scores = {"frozen": 0.6, "lora": 0.7, "recyclelora": 0.8, "soma": 0.65}
    paths = [
        write_run(
            tmp_path / f"{name}{seed}",
            seed,
            value + seed / 100,
            {"adapter.name": name},
            params={"backbone_trainable": int(1e4 * value), "decoder": 5, "total": 9},
        )
        for name, value in scores.items()
        for seed in range(2)
    ]
    c = compare(read_runs(paths), "last", "frozen", 0)
    labels = ["frozen: Frozen", "lora: LoRA"]
    config = ReportConfig(runs="x", order=["soma", "lora", "frozen"], labels=labels)
    asked = Arrangement.of(config, tables.scores(c, c.groups))
    named = asked.named(c)
    assert [g.name for g in named.groups] == ["adapter=recyclelora", "LoRA", "adapter=soma", "Frozen"]
    assert named.reference is named.groups[3] and named.winner == c.winner and named.points is not None
    drawn = asked.ordered(named)
    assert [g.name for g in shown(drawn)] == ["adapter=soma", "LoRA", "Frozen"]
    assert [d.group for d in drawn.differences] == drawn.groups[:2]
    without = Arrangement.of(ReportConfig(runs="x", order=["soma"]), tables.scores(c, c.groups))
    assert [g.name for g in shown(without.ordered(c))] == ["adapter=soma"]
    with style():
        figure, _, _ = cost_of(drawn)
        assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["adapter=soma", "LoRA", "Frozen"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"columns": ["nihgt"]}, r"columns: nihgt is not there \(did you mean night\?\); there are: seeds; mean of"),
        ({"order": ["lora_"]}, None),
        ({"order": ["adapter"]}, "order: adapter is a part of several names; there are: adapter=soma; adapter=lora"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(option, message):
    if message is None:
        assert Arrangement.of(ReportConfig(sweep="x", **option), SCORES).order == ["adapter=lora_equal"]
    else:
        with pytest.raises(UserError, match=message):
            Arrangement.of(ReportConfig(sweep="x", **option), SCORES)


def test_a_label_needs_a_colon():
    ((where, problem),) = ReportConfig(sweep="x", labels=["lora=LoRA"]).check()
    assert where == "labels" and "<name>: <label>" in problem
