"""The page of a sweep that runs, and the list of studies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from recyclelora.reports import live
from recyclelora.reports.index import write_index
from recyclelora.runs.unit import Unit
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.ledger import now, read_trial

from .sweeps import run_name, write_run, write_study, write_trial


def running_sweep(outputs: Path) -> Path:
    """One trial is complete, one runs."""
    sweep = write_study(outputs / "sweeps/mine", n_trials=4, created="2026-01-01T00:00:00+0000")
    write_run(sweep / run_name(0), 0, 0.7)
    write_trial(sweep, 0, {"adapter": "lora"}, values=[0.5], run_dirs=(run_name(0),))
    trial = read_trial(write_trial(sweep, 1, {"adapter": "<soma>"}, state="running"))
    trial.attempts = [Attempt(0, 1, "job 17", now())]
    trial.save_state()
    unit = Unit(trial.unit_folder(0))
    unit.started(1, "job 17")
    unit.progress(30, 100, 0.25)
    return sweep


def test_the_page_of_a_running_sweep_says_how_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sweep = running_sweep(tmp_path / "outputs")
    monkeypatch.setattr("recyclelora.reports.charts.draw", lambda comparison, folder: [])
    live.refresh(sweep, running=True)
    page = (sweep / "report.html").read_text()
    assert "<dt>last," in page and "bootstrap" not in page and "t-interval" not in page  # there is no difference yet
    assert 'http-equiv="refresh"' in page and "30/100" in page and "job 17" in page
    assert "of runs so far" in page and "&lt;soma&gt;" in page and "<soma>" not in page
    live.refresh(sweep, running=False)
    assert 'http-equiv="refresh"' not in (sweep / "report.html").read_text()
    index = (tmp_path / "outputs/index.html").read_text()
    assert 'href="sweeps/mine/report.html"' in index and "1 complete, 1 running" in index


def test_the_index_lists_studies_and_runs_and_skips_what_cannot_be_read(tmp_path: Path):
    write_run(tmp_path / "runs/one", 0, 0.7)
    write_run(tmp_path / "runs/two", 0, 0.7, finished=False)
    write_run(tmp_path / "runs/three", 0, 0.7)
    (tmp_path / "runs/three/result.json").write_text("{")
    index = write_index(tmp_path).read_text()
    assert index.count("not finished") == 2 and 'href="runs/one/"' in index and "None yet" in index


def test_it_follows_until_the_driver_is_gone_and_outlives_what_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sweep = running_sweep(tmp_path / "outputs")
    read, write = os.pipe()
    looks: list[bool] = []

    def refresh(folder: Path, *, running: bool) -> None:
        looks.append(running)
        if len(looks) == 1:
            os.close(write)  # the driver ends, or is killed
            raise ValueError("half written")

    monkeypatch.setattr(live, "refresh", refresh)
    monkeypatch.setattr(os, "nice", lambda by: None)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        live.follow(sweep)
    assert looks == [True, False] and "ValueError: half written" in capsys.readouterr().out


def test_a_short_sweep_starts_no_process(tmp_path: Path):
    with live.watched(tmp_path):
        pass
    assert not (tmp_path / "live.log").exists()


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_shows_a_sweep_while_it_runs(tmp_path: Path):
    from browser import open_page

    sweep = running_sweep(tmp_path / "outputs")
    with live.watched(sweep, first=0.0):
        deadline = time.monotonic() + 120
        while not (tmp_path / "outputs/index.html").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with open_page((tmp_path / "outputs/index.html").as_uri()) as page:
            page.click("text=mine")
            assert "1 complete" in page.inner_text(".tiles").replace("\n", " ")
            assert "of runs so far" in page.inner_text("#now")
            assert "30/100" in page.inner_text("#running")
            page.screenshot(path=tmp_path / "live.png")
