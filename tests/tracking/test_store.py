"""The store: what many processes write at once is there once."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException
from pytest import fixture, raises

from recyclelora.system.errors import UserError
from recyclelora.tracking.follow import explained
from recyclelora.tracking.mlflow.store import Store

STREETS = Dataset(name="streets (train)", digest="0123456789abcdef", source_type="local", source="{}")


@fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


def test_a_data_set_that_many_runs_add_at_once_is_added_once(store):
    """MLflow looks whether a data set is there and then adds it: who is second is refused."""
    experiment = store.experiment("mine")
    runs = [store.client.create_run(experiment).info.run_id for _ in range(8)]
    together, errors = threading.Barrier(len(runs)), []

    def add(run_id):
        together.wait()
        try:
            store.log_inputs(run_id, [DatasetInput(STREETS)])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=[run_id]) for run_id in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = [store.client.get_run(run_id).inputs.dataset_inputs for run_id in runs]
    assert [[entry.dataset.digest for entry in inputs] for inputs in found] == [[STREETS.digest]] * len(runs)


def test_what_a_store_refuses_for_good_is_told(store):
    store.experiment("mine")
    with raises(MlflowException, match="not found"):
        store.log_inputs("0" * 32, [DatasetInput(STREETS)])


def test_a_deleted_experiment_is_named_with_what_to_do(store):
    experiment = store.experiment("mine")
    store.client.delete_experiment(experiment)
    with raises(UserError, match=rf"mine was deleted; restore it .*--experiment-id {experiment}.*tracking.experiment="):
        store.experiment("mine")


def test_a_group_shares_the_file_as_its_umask_says_and_one_that_is_not_mine_is_refused(store, tmp_path, monkeypatch):
    before = os.umask(0o007)
    try:
        store.experiment("mine")
    finally:
        os.umask(before)
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == 0o660
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with raises(UserError, match=r"mlflow\.db: cannot be written: .*; set MLFLOW_TRACKING_URI to a server"):
        _ = Store(store.uri, tmp_path).client


def test_what_sqlalchemy_says_before_the_cause_is_left_out():
    error = MlflowException("(raised as a result of Query-invoked autoflush)\n(sqlite3.Error) readonly\n[SQL: x]")
    assert explained(error) == "MlflowException: (sqlite3.Error) readonly"


class _Older(BaseHTTPRequestHandler):
    """An MLflow before 2.4, which answers `runs/log-inputs` with the page of its web server."""

    def do_POST(self):
        page = b"<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *said):
        pass


def test_a_server_without_data_sets_gets_all_else(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Older) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = Store(f"http://127.0.0.1:{server.server_port}", tmp_path)
        kept = store.log_inputs("0" * 32, [DatasetInput(STREETS)])
        server.shutdown()
    assert kept is False
