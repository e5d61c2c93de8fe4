"""What a person sees: MLflow's pages of real runs of an ablation, in headless Chromium.

``RECYCLELORA_SCREENSHOTS=docs/images pytest -m browser tests/tracking/test_pages.py`` keeps the pictures of the docs.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from browser import open_page
from conftest import TINY, compose_config
from mlflow_server import serving
from tracked import client_of, outcome, trial

from recyclelora.tracking.follow import sync
from recyclelora.tracking.mlflow.views import MODEL_TRAINING
from recyclelora.training.run import Run

pytestmark = pytest.mark.browser

LOOKS = ("day", "night", "fog")
OPTIONS = [
    "data=streets", "data.augment.short_edges=[64]", "data.sources.0.subset=8", "data.source_val.subset=2",
    "data.targets=[" + ",".join(f"{{dataset: streets, split: {x}, name: {x}, subset: 2}}" for x in LOOKS) + "]",
    "trainer.max_steps=12", "trainer.eval_every=4", "trainer.num_figures=2", "optimizer.lr=1e-3", "study=rank_ablation",
]  # fmt: skip
RANKS = (2, 4, 8)
WAIT = 120_000


def make_ablation(folder: Path) -> Path:
    """A sweep of three ranks, really trained, as its driver leaves it; returns its directory."""
    sweep = folder / "outputs/sweeps/rank_ablation"
    sweep.mkdir(parents=True)
    study = {
        "command": "train.py -m adapter.main.rank=2,4,8 study=rank_ablation", "directions": ["maximize"],
        "objectives": ["source_val"], "n_trials": len(RANKS), "created": "2026-01-02T04:00:00+00:00",
        "tuned_on_targets": False,
    }  # fmt: skip
    (sweep / "study.json").write_text(json.dumps(study))
    for number, rank in enumerate(RANKS):
        run = Run.identify(compose_config(folder, *TINY, *OPTIONS, f"adapter.main.rank={rank}"), number)
        with mock.patch.object(sys, "argv", study["command"].split()):
            value = run.execute()
        ledger = trial(sweep, number, "complete", value, params={"adapter.main.rank": rank})
        outcome(ledger, "complete", run.directory.path)
    return sweep


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """(address of the server, configuration, parent's run id)."""
    folder = tmp_path_factory.mktemp("ablation")
    parent = sync(make_ablation(folder))
    with serving(folder / "outputs") as port:
        yield f"http://127.0.0.1:{port}", compose_config(folder, *TINY, *OPTIONS), parent


def keep(page, name: str) -> None:
    """The picture of the docs, where these are asked for."""
    page.locator("[data-component-id='mlflow.assistant.chat_panel.close']").first.click()
    page.wait_for_timeout(3000)  # pictures and charts move until then
    if "RECYCLELORA_SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["RECYCLELORA_SCREENSHOTS"]) / f"{name}.png")


def runs(config, parent):
    """The experiment's id and the trials' runs in their order."""
    client = client_of(config)
    experiment = client.get_run(parent).info.experiment_id
    return experiment, client.search_runs([experiment], "tags.trial != ''", order_by=["tags.trial ASC"])


def test_the_list_of_experiments_leads_to_the_runs_and_not_to_traces(pages):
    address, _, _ = pages
    with open_page(f"{address}/#/experiments", width=1300, height=500) as page:
        page.get_by_text("Model training").first.click(timeout=WAIT)
        page.get_by_role("link", name="rank_ablation").first.click(timeout=WAIT)
        page.get_by_text("sweep rank_ablation").first.wait_for(timeout=WAIT)
        assert "/runs" in page.url


def test_the_server_says_where_a_study_is(pages):
    address, config, parent = pages
    experiment, _ = runs(config, parent)
    said = (Path(config.output_dir) / "server.log").read_text()
    assert f"rank_ablation: {address}/#/experiments/{experiment}/runs?{MODEL_TRAINING}&viewStateShareKey=trials" in said


def test_the_table_of_trials_names_what_varies_and_the_scores(pages):
    address, config, parent = pages
    _, children = runs(config, parent)
    note = client_of(config).get_run(parent).data.tags["mlflow.note.content"]
    (link,) = re.findall(r"\[Table of all trials\]\((.*)\)", note)
    with open_page(f"{address}/{link}", width=1700, height=520) as page:
        for number, rank in enumerate(RANKS):
            page.get_by_text(f"trial {number} main.rank={rank} seed=0").first.wait_for(timeout=WAIT)
        keep(page, "mlflow_trials")
        for run in children:  # columns fill in one after the other
            for value in (run.data.params["adapter.main.rank"], str(run.data.metrics["objective"])[:6]):
                page.get_by_role("gridcell").filter(has_text=value).first.wait_for(timeout=WAIT)
        headings = " ".join(page.get_by_role("columnheader").all_inner_texts())
        assert "main.rank" in headings and "objective" in headings


def test_a_run_shows_its_trial_scores_and_data(pages):
    address, config, parent = pages
    experiment, children = runs(config, parent)
    url = f"{address}/#/experiments/{experiment}/runs/{children[0].info.run_id}?{MODEL_TRAINING}"
    with open_page(url, width=1300, height=1000) as page:
        page.get_by_text("differs from the default").wait_for(timeout=WAIT)
        page.get_by_text("final_miou/night").first.wait_for(timeout=WAIT)
        keep(page, "mlflow_run")
        assert page.get_by_text("Finished").count() and page.get_by_text("sweep rank_ablation").count()


def test_the_pictures_of_a_run_are_on_its_page(pages):
    address, config, parent = pages
    experiment, children = runs(config, parent)
    url = f"{address}/#/experiments/{experiment}/runs/{children[0].info.run_id}/artifacts/figures/overview.png"
    with open_page(f"{url}?{MODEL_TRAINING}", width=1300, height=800) as page:
        picture = page.locator("img[src^=blob], .image-outer-container img, canvas").first
        picture.wait_for(timeout=WAIT)
        keep(page, "mlflow_pictures")
        assert picture.bounding_box()["width"] > 300


def test_the_compare_page_names_ranks_and_scores(pages):
    address, config, parent = pages
    experiment, children = runs(config, parent)
    ids = "%2C".join(f"%22{run.info.run_id}%22" for run in children)
    url = f"{address}/#/compare-runs?runs=%5B{ids}%5D&experiments=%5B%22{experiment}%22%5D&{MODEL_TRAINING}"
    with open_page(url, width=1300, height=1000) as page:
        page.get_by_text("adapter.main.rank").first.wait_for(timeout=WAIT)
        for number, rank in enumerate(RANKS):
            page.get_by_text(f"trial {number} main.rank={rank} seed=0").first.wait_for(timeout=WAIT)
        keep(page, "mlflow_compare")
        text = page.locator("body").inner_text()
        assert "final_miou/night" in text and "adapter.main.rank" in text
        chosen = text.partition("Clear All")[0]
        assert "Trial.main.rank" in chosen and "final_miou/mean" in chosen
