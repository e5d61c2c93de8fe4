"""A real PostgreSQL server for a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import free_port
from waiting import wait_for

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class Server:
    """PostgreSQL with password log-in for the user mlflow, and an empty database of that name."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.data, self.port = POSTGRES[-1], folder / "pg", free_port()
        self.password = folder / "database_password"
        self.password.write_text("p@ss/word:with%signs\n")
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses root
            shutil.chown(folder, "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        create = [*self._as_user, str(self.programs / "initdb"), "-D", str(self.data), "-U", "mlflow",
                  "-A", "scram-sha-256", f"--pwfile={self.password}"]  # fmt: skip
        subprocess.run(create, check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        """Start it; it may not answer yet."""
        self.process = subprocess.Popen(
            [*self._as_user, str(self.programs / "postgres"), "-D", str(self.data), "-p", str(self.port),
             "-k", str(self.data), "-h", "127.0.0.1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        """End it without waiting for its clients, as ``systemctl restart`` does first."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def create_database(self) -> bool:
        """Whether it has answered."""
        environment = os.environ | {"PGPASSWORD": self.password.read_text().strip()}
        admin = [str(self.programs / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow"]
        return subprocess.run(admin, env=environment, capture_output=True).returncode == 0


@pytest.fixture
def postgresql() -> Iterator[Server]:
    """A server that runs, not below pytest's folder, which is closed to other users by each session that begins."""
    if not POSTGRES:
        pytest.skip("needs PostgreSQL's server programs")
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        server = Server(Path(folder))
        try:
            wait_for(server.create_database, 90)
            yield server
        finally:
            server.stop()


@pytest.fixture
def database(postgresql: Server) -> tuple[int, Path]:
    """Its port and the file with the password."""
    return postgresql.port, postgresql.password
