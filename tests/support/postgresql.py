"""A real PostgreSQL server for a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import free_port
from waiting import wait_for

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A PostgreSQL server with password log-in for the user mlflow: its port and the file with the password."""
    if not POSTGRES:
        pytest.skip("needs PostgreSQL's server programs")
    bin_dir, data, port = POSTGRES[-1], tmp_path / "pg", free_port()
    password = tmp_path / "database_password"
    password.write_text("p@ss/word:with%signs\n")
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses root
        for folder in (tmp_path, *tmp_path.parents):
            if folder != Path("/") and folder != Path("/tmp"):
                folder.chmod(0o755)
        data.mkdir()
        shutil.chown(data, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    create = [*as_user, str(bin_dir / "initdb"), "-D", str(data), "-U", "mlflow", "-A", "scram-sha-256",
              f"--pwfile={password}"]  # fmt: skip
    subprocess.run(create, check=True, capture_output=True)
    server = subprocess.Popen(
        [*as_user, str(bin_dir / "postgres"), "-D", str(data), "-p", str(port), "-k", str(data), "-h", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    environment = os.environ | {"PGPASSWORD": password.read_text().strip()}
    admin = [str(bin_dir / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
    try:
        wait_for(lambda: subprocess.run(admin, env=environment, capture_output=True).returncode == 0, 90)
        yield port, password
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for its clients
        server.wait(30)
