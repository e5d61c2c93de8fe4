"""Sending through a server that fails; the full campaign is ``python benchmarks/reliability/tracking.py``."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow_server import serving
from tracked import finished_run

import recyclelora
from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.runs.status import RunEnd, run_end
from recyclelora.tracking.follow import sync
from recyclelora.tracking.mlflow.passes import run_sender

PROXY = Path(recyclelora.__file__).parents[2] / "benchmarks/reliability/faulty_proxy.py"


@pytest.fixture(scope="module")
def faulty_proxy():
    specification = importlib.util.spec_from_file_location("faulty_proxy", PROXY)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.FaultyProxy


@pytest.fixture(scope="module")
def server(empty_store, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("server")
    shutil.copy(empty_store, outputs / "mlflow.db")
    with serving(outputs) as port:
        yield port


@pytest.mark.slow
def test_every_point_arrives_once_through_a_server_that_fails(tracked_config, server, faulty_proxy):
    proxy = faulty_proxy(server, "flaky", rate=0.35, delay=0.05, seed=1)
    config = replace(tracked_config, tracking=replace(tracked_config.tracking, uri=proxy.url))
    path = finished_run(config, finished=False, points=())
    sender, log = run_sender(path, proxy.url), MetricsLog(path / "metrics.jsonl")
    for step in range(1, 31):
        log.append(step, {"loss_ce": 1 / step, "miou/day": step / 100})
        proxy.mode = "full" if 10 < step < 14 else "absent" if 20 < step < 24 else "flaky"
        with contextlib.suppress(Exception):
            sender.send(RunEnd("running"))
    proxy.mode = "flaky"
    for _ in range(60):
        with contextlib.suppress(Exception):
            run_sender(path, proxy.url).send(run_end(path))
            break
    proxy.mode = "healthy"
    run_id = sync(path, to=proxy.url)
    client = mlflow.MlflowClient(f"http://127.0.0.1:{server}")
    experiment = client.get_experiment_by_name("gta2city").experiment_id
    assert [run.info.run_id for run in client.search_runs([experiment])] == [run_id]
    for name in ("loss_ce", "miou/day"):
        counts = Counter(metric.step for metric in client.get_metric_history(run_id, name))
        assert counts == dict.fromkeys(range(1, 31), 1)
    assert client.get_run(run_id).info.status == "KILLED"
    assert sum(proxy.met[fault] for fault in ("drop", "lost", "refuse", "fail")) > 20
    proxy.close()


def test_the_pages_answer_this_machine_only(server):
    page = f"http://127.0.0.1:{server}/"
    assert requests.get(page, timeout=10).status_code == 200
    assert requests.get(page, headers={"Host": "evil.example"}, timeout=10).status_code == 403
