"""The page as a person sees it and clicks on it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import open_page

from recyclelora.config.commands import ReportConfig
from recyclelora.drawing.sheets import ClassColours, Shown, panel, panel_columns, save_png
from recyclelora.reports import charts
from recyclelora.reports.comparison import compare
from recyclelora.reports.page import predictions
from recyclelora.reports.records import read_sweep
from recyclelora.reports.writing import write_report
from recyclelora.system.progress import Reporter

from .sweeps import CLASSES, large_sweep, run_name, write_run, write_study, write_trial

COLOURS = ClassColours(CLASSES, [(128, 64, 128), (70, 130, 180), (0, 0, 142)])


def picture_of(ids: np.ndarray) -> np.ndarray:
    image = np.full((*ids.shape, 3), 100, np.uint8)
    return panel([Shown("day", image, np.zeros_like(ids), ids)] * 2, COLOURS, title="a title")


def test_columns_of_a_panel_are_what_was_put_in():
    ids = np.repeat(np.arange(3, dtype=np.uint8), 8)[None].repeat(12, 0)
    columns = panel_columns(picture_of(ids), len(CLASSES))
    assert list(columns) == ["image", "ground truth", "prediction", "errors"]
    height = 2 * (420 * 12 // 24) + 4  # two rows, a gap between
    assert {column.shape for column in columns.values()} == {(height, 420, 3)}
    assert {tuple(pixel) for pixel in columns["prediction"][:200].reshape(-1, 3)} == set(map(tuple, COLOURS.colours))
    assert {tuple(pixel) for pixel in columns["ground truth"][:200].reshape(-1, 3)} == {(128, 64, 128)}


def mixed_sweep(sweep: Path) -> Path:
    """Eight configurations, a failed trial, pictures of two."""
    write_study(sweep)
    for number in range(8):
        changes = {"optimizer.lr": (number + 1) / 1000, "adapter.main.rank": 8 if number % 2 else 16}
        path = write_run(sweep / run_name(number), 0, 0.5 + number / 50, changes, images=True)
        write_trial(sweep, number, changes, values=[0.4 + number / 50], run_dirs=(run_name(number),))
        if number > 5:
            ids = np.full((12, 24), number % 3, np.uint8)
            for name in ("day", "night"):
                save_png(picture_of(ids), path / f"figures/predictions_{name}.png")
    write_trial(sweep, 8, {"optimizer.lr": 9.0}, "failed", reason="ValueError: <b>too high</b>")
    return sweep


def report(sweep: Path, **options) -> str:
    write_report(ReportConfig(sweep=str(sweep), **options), Reporter(enabled=False))
    return (sweep / "report/report.html").read_text()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """The folder of a report of `mixed_sweep`."""
    sweep = mixed_sweep(tmp_path_factory.mktemp("page") / "s")
    report(sweep, resamples=50)
    return sweep / "report"


def test_the_page_is_one_file_without_network_and_escapes_what_it_shows(mixed):
    text = (mixed / "report.html").read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", text)
    assert links and all(link.startswith(("#", "data:image/")) for link in links)
    assert not re.search(r"url\((?!#)|@import|fetch\(|https?://(?!www\.w3\.org/)", text)
    assert "ValueError: &lt;b&gt;too high&lt;/b&gt;" in text and "ledger/0008/unit_0/log.txt" in text
    assert {path.name for path in mixed.iterdir()} == {
        "report.html", "table.md", "table.tex", "table.csv", "runs.csv", "figures",
    }  # fmt: skip
    assert {path.stem for path in (mixed / "figures").iterdir()} == {
        "scores", "differences", "per_class", "reliability", "history", "parallel", "importances", "curve", "training",
    }  # fmt: skip


def test_a_report_of_nothing_finished_and_of_all_failed(tmp_path):
    sweep = write_study(tmp_path / "s")
    write_trial(sweep, 0, {"optimizer.lr": 0.1}, "waiting")
    write_trial(sweep, 1, {"optimizer.lr": 0.2}, "failed", reason="OutOfMemoryError")
    text = report(sweep)
    assert "No run has finished yet." in text and "OutOfMemoryError" in text
    assert (
        (sweep / "report/table.md")
        .read_text()
        .startswith("# s\n\nTrials: 1 waiting, 1 failed. No run has finished yet.")
    )


def test_figures_follow_what_varies(tmp_path):
    sweep = write_study(tmp_path / "s", directions=["maximize", "minimize"], objectives=["source_val", "params"])
    for number, rank in enumerate((8, 16, 32, 64)):
        params = {"backbone_trainable": 100 * rank, "decoder": 500, "total": 22000}
        write_run(sweep / run_name(number), 0, 0.5 + rank / 500, {"adapter.main.rank": rank}, params=params)
        write_trial(
            sweep, number, {"adapter.main.rank": rank}, values=[rank / 100, 100.0 * rank], run_dirs=(run_name(number),)
        )
    c = compare(read_sweep(sweep), "last", None, 0)
    assert all(chart(c) is not None for chart in (charts.curve, charts.pareto, charts.cost, charts.history))
    assert all(chart(c) is None for chart in (charts.parallel, charts.importances, charts.rank_split))


@pytest.mark.browser
def test_sorting_filtering_and_choosing_pictures(mixed):
    with open_page((mixed / "report.html").as_uri()) as page:
        assert page.title() == "Report: s" and "8" in page.inner_text("#states")
        first = "#scores tbody tr:not([hidden]):first-child td:first-child"
        assert "lr=0.008" in page.inner_text(first)
        head = page.locator("#scores thead th", has_text="mean of targets")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending" and "lr=0.008" in page.inner_text(first)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending" and "lr=0.001" in page.inner_text(first)
        page.locator("section:has(#scores) input.filter").fill("rank=8 0.004")
        assert page.locator("#scores tbody tr:visible").count() == 1
        assert page.inner_text("section:has(#scores) .shown-rows") == "1 of 8 rows"
        page.locator("section:has(#scores) input.filter").fill("")
        assert page.locator("#scores tbody tr:visible").count() == 8

        def strips() -> set[tuple[str, str]]:
            found = page.locator(".strip:visible")
            return {tuple(found.nth(i).evaluate("e => [e.dataset.set, e.dataset.view]")) for i in range(found.count())}

        assert strips() == {("day", "image"), ("day", "ground truth"), ("day", "prediction")}
        page.click("#set-buttons button:has-text('night')")
        page.click("#view-buttons button:has-text('errors')")
        assert strips() == {("night", "image"), ("night", "ground truth"), ("night", "errors")}
        images = page.locator(".strip:visible img")
        assert images.count() == 4  # two groups have pictures
        assert all(images.nth(i).evaluate("e => e.complete && e.naturalWidth === 300") for i in range(4))
        page.locator("#group-boxes input").first.uncheck()
        assert page.locator(".strip:visible").count() == 3
        assert "too high" in page.inner_text("#failures")
        assert page.locator("figure.chart svg").count() == 9
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        ink = "getComputedStyle(document.querySelector('#figure-scores svg text')).fill"
        light = page.evaluate(ink)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(ink) != light  # text of figures follows the reader's colours


@pytest.mark.browser
def test_a_large_sweep_opens_and_sorts(tmp_path):
    report(large_sweep(tmp_path / "s", 60), resamples=100)
    with open_page((tmp_path / "s/report/report.html").as_uri()) as page:
        assert page.locator("#trials tbody tr").count() == 60
        page.locator("#trials thead th", has_text="lr").locator("button").click()
        rates = page.locator("#trials tbody tr td:nth-child(7)").all_inner_texts()
        values = [float(rate) for rate in rates]
        assert values == sorted(values, reverse=True)
        assert page.locator("#figure-rank_split svg").is_visible()


def test_pictures_of_other_images_are_left_out(tmp_path):
    sweep = mixed_sweep(tmp_path / "s")
    path = sweep / run_name(6) / "figures/predictions_day.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[:-50])
    strips = predictions(compare(read_sweep(sweep), "last", None, 0))
    assert Counter(s.set for s in strips if s.view == "prediction") == {"day": 1, "night": 2}
