"""MLflow's pages on the local store, for this machine only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from recyclelora.tracking.store import Store

RUNS_PAGE = "#/experiments?workflowType=machine_learning"
"""The list of experiments with runs; MLflow 3 would open with its pages for language models."""


def serve(outputs: Path, port: int) -> NoReturn:
    """Become the MLflow server of the runs in ``outputs``, on the loopback interface and for requests to it alone."""
    outputs = outputs.absolute()
    outputs.mkdir(parents=True, exist_ok=True)
    store = Store(f"sqlite:///{outputs / 'mlflow.db'}", outputs)
    store.client.search_experiments(max_results=1)  # creates the schema, in turn with runs that begin now
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri, "--workers", "1",
        "--artifacts-destination", str(outputs / "mlartifacts"), "--host", "127.0.0.1", "--port", str(port),
        "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}",
    ]  # fmt: skip
    print(f"open http://127.0.0.1:{port}/{RUNS_PAGE}", flush=True)
    # no workers for jobs of language models, which would be seven more processes
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.execve(command[0], command, os.environ | quiet)  # noqa: S606
