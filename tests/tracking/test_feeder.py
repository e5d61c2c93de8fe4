"""The feeding process: started by training, harmless to it, finished in a bounded time; and the commands."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from tracked import client_of, finish, finished_run, history, run_files, trial

from recyclelora.config.training import TrackingConfig
from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.tracking.follow import pause, sync
from recyclelora.tracking.process import Follower, asked_for, followed, send


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recyclelora.tracking", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_run_is_mirrored_while_it_trains_with_samples_of_its_machine(tracked_config):
    path = finished_run(tracked_config, finished=False)
    with followed(path, ["mlflow"]) as (feeder,):
        deadline = time.monotonic() + 60
        while not (path / "mlflow.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        MetricsLog(path / "metrics.jsonl").append(3, {"loss_ce": 0.125})
        finish(path)
    assert feeder.sent, (path / "mlflow.log").read_text()
    run = client_of(tracked_config).get_run(json.loads((path / "mlflow.json").read_text())["run_id"])
    assert run.info.status == "FINISHED" and run.data.metrics["loss_ce"] == 0.125
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert (path / "mlflow.log").read_text() == ""


def test_a_job_of_a_sweep_only_writes_files(tracked_config, monkeypatch):
    path = finished_run(tracked_config)
    monkeypatch.setenv("RECYCLELORA_UNIT", "/somewhere/ledger/0000/unit_0")
    assert asked_for(TrackingConfig(mlflow=True)) == []
    with followed(path, []) as followers:
        assert followers == []
    assert not (path / "mlflow.log").exists()


def test_one_feeder_sends_a_sweep_that_has_not_begun(tracked_config):
    sweep = Path(tracked_config.output_dir) / "sweeps" / "mine"
    sweep.mkdir(parents=True)
    config = replace(tracked_config, study="mine")
    with followed(sweep, ["mlflow"]) as (feeder,):
        for number in (0, 1):
            run_files(sweep / f"trial_{number:04d}-{number:016x}", config)
            trial(sweep, number, "complete", 0.5)
    assert feeder.sent, (sweep / "mlflow.log").read_text()
    client = client_of(config)
    assert len(client.search_runs([client.get_experiment_by_name("mine").experiment_id])) == 3


def test_a_server_that_is_not_there_only_costs_a_bounded_wait(tracked_config, monkeypatch):
    """Nothing listens on the discard port."""
    tracked_config.tracking.uri = "http://127.0.0.1:9"
    path = finished_run(tracked_config)
    began = time.monotonic()
    feeder = Follower("mlflow", path, "http://127.0.0.1:9")
    assert time.monotonic() - began < 1
    assert feeder.finish(timeout=30.0) is False
    assert "not sent yet" in (path / "mlflow.log").read_text() or feeder.process.returncode != 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    failure = send(path)
    assert failure is not None and "127.0.0.1" in failure


def test_sync_names_what_is_wrong_and_sends_the_rest(tracked_config, tmp_path):
    path = finished_run(tracked_config)
    done = command("sync", tmp_path / "nowhere", path)
    assert done.returncode == 1 and "nowhere" in done.stderr and "config.yaml" in done.stderr
    assert "Traceback" not in done.stderr and f"{path}: MLflow run" in done.stdout
    run_id = json.loads((path / "mlflow.json").read_text())["run_id"]
    assert history(client_of(tracked_config), run_id, "loss_ce") == [(1, 0.5), (2, 0.25)]


def test_no_password_of_the_address_is_written_anywhere(tracked_config, monkeypatch):
    path = finished_run(tracked_config)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:canary@127.0.0.1:9")
    done = command("sync", path)
    assert done.returncode == 1 and "canary" not in done.stderr + done.stdout
    Follower("mlflow", path).finish(timeout=30.0)
    for file in Path(tracked_config.output_dir).rglob("*"):
        assert not file.is_file() or b"canary" not in file.read_bytes(), file
    assert (path / "mlflow.log").read_text()


def test_credentials_go_only_where_this_user_says(tracked_config, monkeypatch):
    """Somebody else's run names a server: nothing is asked of it, and nothing is sent."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization", ""))
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracked_config.tracking.uri = f"http://127.0.0.1:{server.server_port}"
        path = finished_run(tracked_config)
        for arguments in (["sync", path], ["register", path, "name=x"]):
            done = command(*arguments)
            assert done.returncode == 1 and f"--to {tracked_config.tracking.uri}" in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1 and asked == []
        assert "not named" in (send(path) or "") and asked == []
        assert command("sync", path, "--to", tracked_config.tracking.uri).returncode == 1
        assert asked and asked[0].startswith("Basic ")
        server.shutdown()


def test_links_inside_a_run_are_not_followed(tracked_config, tmp_path):
    path = finished_run(tracked_config)
    (tmp_path / "secret").write_text("canary")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/b.png").write_text("canary")
    (path / "figures/a.png").symlink_to(tmp_path / "secret")
    (path / "figures/more").symlink_to(tmp_path / "pictures")
    assert command("sync", path).returncode == 0
    sent = Path(tracked_config.output_dir) / "mlartifacts"
    assert [file.name for file in sent.rglob("*.png")] == ["overview.png"]
    (path / "train.log").symlink_to(tmp_path / "secret")
    done = command("sync", path)
    assert done.returncode == 1 and "train.log: no plain file; links inside a run are not followed" in done.stderr
    assert not [file for file in sent.rglob("*") if file.is_file() and "canary" in file.read_text(errors="replace")]


@pytest.mark.parametrize("needed", ["mlflow", "torch"])
def test_training_starts_the_feeder_without_importing(needed):
    code = f"import sys, recyclelora.tracking.process; sys.exit({needed!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


def test_it_asks_less_and_less_often_and_never_gives_up():
    assert [pause(failures) for failures in (0, 1, 2, 3, 4, 5000)] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


class Odd(BaseHTTPRequestHandler):
    """A server that answers every request with one and the same thing."""

    body, drips = b"", False

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))  # else closing resets the connection
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        with contextlib.suppress(OSError):
            if self.drips:
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.2)
            self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def odd():
    """Such a server, and its address."""

    class Mine(Odd):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Mine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Mine, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<!DOCTYPE html><html><body>" + b"x" * 1_000_000, "a web page came instead of MLflow's answer"),
        (
            b'{"experiments": [], "experiment": {"experiment_id": "1"}, "run": {}, "runs": []}',
            "is this an MLflow server",
        ),
        (b"y" * 1_000_000, "MlflowException"),
    ],
)
def test_odd_answers_are_one_line(tracked_config, odd, body, words):
    handler, address = odd
    handler.body = body
    done = command("sync", finished_run(tracked_config), "--to", address)
    assert done.returncode == 1 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and len(done.stderr) < 900


def test_a_server_that_drips_bytes_is_given_up(tracked_config, odd, monkeypatch):
    handler, address = odd
    handler.drips = True
    monkeypatch.setattr("recyclelora.tracking.mlflow.deadline.WHOLE_SECONDS", 1.0)
    monkeypatch.setattr(requests.Session, "request", requests.Session.request)  # put back afterwards
    began = time.monotonic()
    with pytest.raises(Exception, match="no whole answer within 1 s"):
        sync(finished_run(tracked_config), to=address)
    assert time.monotonic() - began < 20
