from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from conftest import TINY

from recyclelora.config import to_yaml
from recyclelora.metrics_log import MetricsLog
from recyclelora.tracking import Mirror, flat_parameters, run_name, send, sync


def finished_run(config, name="run", points=((1, 0.5), (2, 0.25))) -> Path:
    """The files that training leaves, without training."""
    path = Path(config.output_dir) / "runs" / name
    (path / "figures").mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(config))
    about = {"command": "train.py adapter=x", "signature": "0" * 16, "protocol": "whole", "git": {"commit": "abc"}}
    (path / "run.json").write_text(json.dumps(about))
    (path / "result.json").write_text("{}")
    (path / "figures/overview.png").write_bytes(b"png")
    log = MetricsLog(path / "metrics.jsonl")
    for step, loss in points:
        log.append(step, {"loss_ce": loss, "miou/day": loss / 2})
    return path


def client_of(config):
    return mlflow.MlflowClient(f"sqlite:///{Path(config.output_dir).absolute() / 'mlflow.db'}")


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """Two runs of one study, sent twice each, with a point that came between."""
    from conftest import compose_config

    folder = tmp_path_factory.mktemp("tracked")
    configs = [compose_config(folder, *TINY, "study=mine", f"seed={seed}") for seed in (0, 1)]
    ids = []
    for config in configs:
        path = finished_run(config, f"run{config.seed}")
        first = sync(path)
        MetricsLog(path / "metrics.jsonl").append(3, {"loss_ce": 0.125})
        with (path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "ti')  # a line that is being written
        assert sync(path) == first
        ids.append(first)
    return configs, ids


def test_every_point_arrives_once(sent):
    configs, (run_id, _) = sent
    client = client_of(configs[0])
    history = client.get_metric_history(run_id, "loss_ce")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "miou/day")] == [(1, 0.25), (2, 0.125)]


def test_parameters_names_tags_pictures_and_state(sent):
    configs, (run_id, _) = sent
    client = client_of(configs[0])
    run = client.get_run(run_id)
    assert run.data.params["adapter.main.rank"] == "4" and run.data.params["adapter.sub.init"] == "rrqr_major"
    assert run.data.params["data.num_classes"] == "19"
    assert run.data.params["data.class_names"].startswith("road, sidewalk, building")
    assert run.info.run_name == "recyclelora-4+2 vit_tiny_test gta2city seed 0" == run_name(configs[0])
    assert run.data.tags["mlflow.source.git.commit"] == "abc" and run.data.tags["signature"] == "0" * 16
    assert run.info.status == "FINISHED"
    assert {f.path for f in client.list_artifacts(run_id)} == {"config.yaml", "figures", "result.json", "run.json"}
    assert [f.path for f in client.list_artifacts(run_id, "figures")] == ["figures/overview.png"]


def test_an_analysis_is_sent_once_and_again_when_it_changes(make_config):
    path = finished_run(make_config(*TINY))
    (path / "analysis").mkdir()
    (path / "analysis/rank.csv").write_text("layer\n")
    (path / "analysis/spectra.png").write_bytes(b"png")
    summary = {"step": 4, "metrics": {"rank_efficiency/main/trained": 0.75}}
    (path / "analysis/summary.json").write_text(json.dumps(summary))
    assert send(path) is None and send(path) is None
    client, run_id = client_of(make_config(*TINY)), sync(path)
    name = "analysis/rank_efficiency/main/trained"
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, name)] == [(4, 0.75)]
    files = {f.path for f in client.list_artifacts(run_id, "analysis")}
    assert files == {"analysis/rank.csv", "analysis/spectra.png", "analysis/summary.json"}
    summary["metrics"]["rank_efficiency/main/trained"] = 0.5
    (path / "analysis/summary.json").write_text(json.dumps(summary))
    sync(path)
    assert client.get_run(run_id).data.metrics[name] == 0.5


def test_sending_to_a_server_that_is_not_there_says_so(make_config):
    path = finished_run(make_config(*TINY, "tracking.uri='http://127.0.0.1:9'"))
    failure = send(path)
    assert failure is not None and "127.0.0.1" in failure


def test_a_run_that_was_killed_says_so_until_it_goes_on(make_config):
    path = finished_run(make_config(*TINY))
    (path / "result.json").unlink()
    client, run_id = client_of(make_config(*TINY)), sync(path)
    states = [client.get_run(run_id).info.status]
    for training in (True, False):
        assert sync(path, training=training) == run_id
        states.append(client.get_run(run_id).info.status)
    assert states == ["KILLED", "RUNNING", "KILLED"]


def test_another_store_gets_the_whole_run_and_moved_outputs_keep_theirs(make_config, tmp_path, monkeypatch):
    path = finished_run(make_config(*TINY))
    first = sync(path)
    moved = tmp_path / "moved"
    (tmp_path / "outputs").rename(moved)
    assert sync(moved / "runs" / path.name) != first
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    other = sync(moved / "runs" / path.name)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'other.db'}")
    assert len(client.get_metric_history(other, "loss_ce")) == 2
    assert client.get_run(other).data.params["adapter.main.rank"] == "4"


def test_runs_of_a_study_share_one_parent(sent):
    configs, ids = sent
    client = client_of(configs[0])
    parents = {client.get_run(run_id).data.tags["mlflow.parentRunId"] for run_id in ids}
    assert len(parents) == 1
    assert client.get_run(parents.pop()).info.run_name == "sweep mine"
    experiment = client.get_experiment(client.get_run(ids[0]).info.experiment_id)
    assert experiment.name == "mine"
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_many_runs_may_start_at_once_on_nothing(make_config):
    paths = [finished_run(make_config(*TINY, f"seed={seed}"), f"run{seed}") for seed in range(3)]
    command = [sys.executable, "-m", "recyclelora.tracking", "sync"]
    started = [subprocess.Popen([*command, str(path)]) for path in paths]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    client = client_of(make_config(*TINY))
    assert len(client.search_runs([client.get_experiment_by_name("gta2city").experiment_id])) == 3


def test_flat_parameters_hold_values_and_no_paths(make_config):
    flat = flat_parameters(make_config(*TINY))
    assert flat["trainer.max_steps"] == 4 and flat["data.augment.crop"] == [64, 64]
    assert not [key for key in flat if key.startswith(("output_dir", "cache", "tracking"))]


def test_rewind_drops_later_points_and_a_torn_line(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append(step, {"x": 1.0})
    with log.path.open("a") as file:
        file.write('{"step": 2, ')
    log.rewind(2)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [1, 2]


def test_a_server_that_is_not_there_only_costs_a_bounded_wait(make_config):
    """Nothing listens on the discard port."""
    config = make_config(*TINY, "tracking.uri='http://127.0.0.1:9'")
    path = finished_run(config)
    began = time.monotonic()
    mirror = Mirror(path)
    assert time.monotonic() - began < 1
    assert mirror.finish(timeout=8.0) is False
    assert "not sent yet" in (path / "mlflow.log").read_text() or mirror.process.returncode != 0


def test_sync_command_names_what_is_wrong(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "recyclelora.tracking", "sync", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "config.yaml" in done.stderr and "Traceback" not in done.stderr
