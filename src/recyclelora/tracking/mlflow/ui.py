"""MLflow's pages on the local store, for this machine only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from recyclelora.system.sqlite import sqlite_url
from recyclelora.tracking.mlflow.store import DATABASE, Store
from recyclelora.tracking.mlflow.views import link, view_of

SHOWN = 10
"""Studies whose runs are named at the start."""


def serve(outputs: Path, port: int) -> NoReturn:
    """Become the MLflow server of the runs in ``outputs``, on the loopback interface and for requests to it alone."""
    outputs = outputs.absolute()
    outputs.mkdir(parents=True, exist_ok=True)
    store = Store(sqlite_url(outputs / DATABASE), outputs)
    # creates the schema, in turn with runs that begin now
    recent = store.client.search_experiments(max_results=SHOWN, order_by=["last_update_time DESC"])
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--workers", "1",
        "--artifacts-destination", str(outputs / "mlartifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}",
    ]  # fmt: skip
    page = f"http://127.0.0.1:{port}/#/experiments"
    print(f"open {page} and choose 'Model training' (once a browser), or:")
    for experiment in recent:
        if experiment.experiment_id != "0":
            place = link(experiment.experiment_id, view_of(experiment.tags))
            print(f"  {experiment.name}: http://127.0.0.1:{port}/{place}")
    sys.stdout.flush()
    # no workers for jobs of language models, which would be seven more processes
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.execve(command[0], command, os.environ | quiet)  # noqa: S606
