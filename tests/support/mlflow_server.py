"""A real MLflow server, started as ``make ui`` does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(outputs: Path) -> Iterator[int]:
    """The port of a server of the runs in ``outputs``; its words go to ``server.log`` there."""
    port = free_port()
    with (outputs / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "recyclelora.tracking", "ui", str(outputs), "--port", str(port)],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (outputs / "server.log").read_text()
                time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)
