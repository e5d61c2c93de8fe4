"""The files for papers, letter by letter."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from recyclelora.config.commands import ReportConfig
from recyclelora.reports import numbers, tables
from recyclelora.reports.comparison import compare
from recyclelora.reports.records import read_sweep
from recyclelora.reports.table import tex
from recyclelora.reports.writing import latex, main_tables, markdown, write_report
from recyclelora.system.progress import Reporter

from .sweeps import run_name, write_run, write_study, write_trial

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """Frozen and LoRA with three seeds, one failed trial, one that is running."""
    sweep = write_study(tmp_path_factory.mktemp("tables") / "adapters")
    number = 0
    for name, quality in (("frozen", 0.6), ("lora", 0.7)):
        for seed in range(3):
            changes = {"adapter.name": name, "adapter.kind": "frozen" if name == "frozen" else "low_rank"}
            write_run(sweep / run_name(number), seed, quality + seed / 200, changes, images=True)
            write_trial(sweep, number, {"adapter": name, "seed": seed}, values=[quality], run_dirs=(run_name(number),))
            number += 1
    write_trial(sweep, 6, {"adapter": "dora", "seed": 0}, "failed", reason="RuntimeError: a | b")
    write_run(sweep / run_name(7), 1, 0.5, {"adapter.name": "dora"}, finished=False)
    write_trial(sweep, 7, {"adapter": "dora", "seed": 1}, "running", run_dirs=(run_name(7),))
    return compare(read_sweep(sweep), "last", None, 200)


@pytest.mark.parametrize("name", ["table.md", "table.tex", "table.csv"])
def test_golden_files(comparison, name):
    made = {
        "table.md": markdown(comparison, main_tables(comparison), 20),
        "table.tex": latex(main_tables(comparison), 20),
        "table.csv": numbers.groups_csv(comparison),
    }
    assert made[name] == (GOLDEN / name).read_text()


def test_the_terminal_gets_differences_and_verdicts(comparison, tmp_path, capsys):
    write_report(ReportConfig(sweep=str(comparison.study.folder), output=str(tmp_path)), Reporter())
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row.strip("│").split("│")][-1] for row in rows] == ["+11.04 better", "reference"]


def test_a_report_makes_its_main_tables_once_beside_those_of_the_page(comparison, tmp_path, monkeypatch):
    made, scores = [], tables.scores
    monkeypatch.setattr(tables, "scores", lambda *about: made.append(1) or scores(*about))
    asked = ReportConfig(sweep=str(comparison.study.folder), output=str(tmp_path), columns=["seeds"])
    write_report(asked, Reporter())
    assert len(made) == 2


def test_the_table_of_runs_has_every_trial(comparison):
    rows = list(csv.DictReader(io.StringIO(numbers.runs_csv(comparison))))
    assert list(rows[0]) == [
        "trial", "kind", "state", "reason", "group", "seed", "tuned_on_targets", "protocol", "checkpoint", "step",
        "day", "night", "target_mean", "source_val", "objective", "backbone_trainable", "decoder", "total", "seconds",
        "peak_memory_mb", "signature", "path", "adapter",
    ]  # fmt: skip
    assert [row["state"] for row in rows] == ["complete"] * 6 + ["failed", "running"]
    assert rows[6]["reason"] == "RuntimeError: a | b" and rows[6]["adapter"] == "dora" and rows[6]["day"] == ""
    assert rows[7]["step"] == "10" and rows[7]["path"] == run_name(7) and rows[7]["target_mean"] == ""
    first = comparison.groups[1].runs[0]
    assert (
        float(rows[0]["day"]) == pytest.approx(first.scores["day"], rel=1e-7) and rows[0]["group"] == "adapter=frozen"
    )


def test_tuning_on_targets_is_in_every_file(tmp_path):
    sweep = write_study(tmp_path / "s", tuned_on_targets=True, objectives=["target_mean"])
    for seed, name in enumerate(("a", "b")):
        write_run(sweep / run_name(seed), 0, 0.5 + seed / 10, {"adapter.name": name}, objective="target_mean")
    c = compare(read_sweep(sweep), "last", None, 10)
    text = markdown(c, main_tables(c), 20)
    assert "**Tuned on targets.**" in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(headings) == 5 and all("tuned on targets" in line for line in headings)
    captions = [line for line in latex(main_tables(c), 20).splitlines() if "caption" in line]
    assert len(captions) == 2 and all("tuned on targets" in line for line in captions)
    for text in (numbers.groups_csv(c), numbers.runs_csv(c)):
        assert {row["tuned_on_targets"] for row in csv.DictReader(io.StringIO(text))} == {"true"}


def test_long_tables_are_cut_and_say_so(comparison):
    table = tables.scores(comparison, comparison.groups)
    assert "1 more rows are in the CSV files." in table.markdown(1) and "The first 1 of 2 rows." in table.latex(1)


def test_latex_is_escaped():
    assert tex("a_b & 5 % -0.5 ± 1 < 2 {x}") == r"a\_b \& 5 \% $-$0.5 $\pm$ 1 $<$ 2 \{x\}"
    assert tex("1e-05, rrqr-minor") == "1e-05, rrqr-minor"


def test_words_for_sizes():
    assert [tables._count(v) for v in (0, 900, 32275, 2654208)] == ["0", "900", "32.3 k", "2.65 M"]
    assert [tables._time(v) for v in (89.0, 90.0, 5400.0)] == ["89 s", "1.5 min", "1.5 h"]
    assert [tables._number(v, tables._p).text for v in (0.0001, 0.0321, None)] == ["< 0.001", "0.032", "–"]
