from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from recyclelora.evaluation.scores import Scores, best_step, objective, score_table
from recyclelora.system.progress import Reporter, screen


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr("recyclelora.system.progress.time.monotonic", lambda: now[0])
    return now


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys, clock):
    reporter = Reporter(tmp_path / "train.log")
    with reporter.bar("training", 10, done=4, terse=True) as update:
        clock[0] += 60
        update(2, "loss 1.5")
        clock[0] += 1000
        update(1)
        update(3, "loss 1.25")
    lines = ["training 6/10  loss 1.5  ETA 0:02:00", "training 10/10  loss 1.25"]
    assert capsys.readouterr().out.splitlines() == lines
    assert [line[9:] for line in (tmp_path / "train.log").read_text().splitlines()] == lines


def test_a_bar_without_words_of_its_own_has_a_line_now_and_then(capsys, clock):
    with Reporter().bar("evaluating", 100) as update:
        for _ in range(5):
            clock[0] += 10
            update(10)
    assert capsys.readouterr().out.splitlines() == ["evaluating 40/100  ETA 0:01:00"]


def test_a_bar_on_a_terminal_keeps_its_words_in_the_log(tmp_path: Path):
    reporter = Reporter(tmp_path / "train.log")
    with (tmp_path / "screen").open("w") as screen:
        reporter.console = Console(force_terminal=True, width=120, file=screen)
        reporter.interactive = True
        with reporter.bar("training", 10) as update:
            update(5, "loss 1.5", total=20)
    assert "training 5/20 loss 1.5" in (tmp_path / "train.log").read_text()
    shown = (tmp_path / "screen").read_text()
    assert "5/20" in shown and "loss 1.5" in shown and "ETA" in shown


def test_a_wide_table_is_whole_where_there_is_no_terminal(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdin", None)
    table = Table(*(f"configuration {index}" for index in range(10)))
    table.add_row(*(f"{index}.123±0.456" for index in range(10)))
    Reporter(tmp_path / "train.log").table(table)
    for text in (capsys.readouterr().out, (tmp_path / "train.log").read_text()):
        assert all(f"{index}.123±0.456" in text for index in range(10))


def test_other_processes_are_silent(tmp_path: Path, capsys):
    reporter = Reporter(tmp_path / "train.log", enabled=False)
    reporter.note("nothing")
    with reporter.bar("training", 10) as update:
        update(1, "loss")
    assert capsys.readouterr().out == "" and not (tmp_path / "train.log").exists()


def test_markup_in_names_is_printed_as_it_is(tmp_path: Path, capsys):
    Reporter().note("[bold]data[/bold]")
    assert capsys.readouterr().out == "[bold]data[/bold]\n"


SCORES = [
    Scores(10, {"source_val": [0.5, None], "day": [0.4, 0.2], "night": [0.1, None]}),
    Scores(20, {"source_val": [0.4, 0.4], "day": [0.6, 0.2], "night": [0.3, None]}),
    Scores(30, {"source_val": [0.5, 0.5], "day": [0.2, 0.2], "night": [0.1, None]}),
]


def test_absent_classes_do_not_count_and_the_mean_is_plain():
    assert SCORES[0].summary() == {
        "targets": {"day": 0.30000000000000004, "night": 0.1}, "mean": 0.2, "source_val": 0.5,
    }  # fmt: skip
    assert objective(SCORES[0], "source_val") == 0.5 and objective(SCORES[0], "target_mean") == 0.2
    assert Scores(1, {"source_val": [None], "day": [None]}).summary() == {
        "targets": {"day": None}, "mean": None, "source_val": None,
    }  # fmt: skip


def test_best_checkpoints_and_ties_go_to_the_earlier():
    assert best_step(SCORES, "best_source") == 10
    assert best_step(SCORES, "best_target") == 20
    assert best_step([], "best_source") is None


def test_the_table_names_every_set_in_percent():
    console = Console(width=80)
    with console.capture() as captured:
        console.print(score_table("title", {"last": {**SCORES[0].summary(), "step": 10}}))
    text = captured.get()
    for words in ("last (step 10)", "day", "30.00", "night", "10.00", "mean of targets", "20.00", "50.00"):
        assert words in text


def test_no_text_of_a_file_steers_the_terminal(capsys):
    table = Table("what")
    table.add_row("a\x1b[2Jb\u202ec")
    screen().print(table)
    screen().print("x\x1b]0;title\x07y\tz \udce9")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    assert r"a\x1b[2Jb\u202ec" in out and r"x\x1b]0;title\x07y" in out and r"\udce9" in out


def test_a_notebook_gets_plain_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a kernel sets it
    assert not Reporter().interactive
